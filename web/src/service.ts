/**
 * The service worker of an exported page. It adds the headers that let WebAssembly use threads, for servers that cannot
 * send them, and keeps the page's files, so that the page also opens without a network.
 */

interface FetchEvent extends Event {
  readonly request: Request;
  respondWith(answer: Promise<Response>): void;
  waitUntil(work: Promise<unknown>): void;
}
interface Scope {
  skipWaiting(): Promise<void>;
  readonly clients: { claim(): Promise<void> };
  readonly registration: { readonly scope: string };
  addEventListener(kind: "install" | "activate" | "fetch", listen: (event: FetchEvent) => void): void;
}
const scope = self as unknown as Scope;
const cacheName = `deop ${scope.registration.scope}`;

scope.addEventListener("install", () => void scope.skipWaiting());
scope.addEventListener("activate", (event) => event.waitUntil(scope.clients.claim()));
scope.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || !request.url.startsWith(scope.registration.scope)) return;
  event.respondWith(answer(request));
});

async function answer(request: Request): Promise<Response> {
  const cache = await caches.open(cacheName);
  // An address with a version names one content for ever; everything else is asked for again, while there is a network.
  const fixed = new URL(request.url).searchParams.has("v");
  const kept = fixed && request.cache !== "reload" ? await cache.match(request) : undefined;
  if (kept) return isolated(kept);
  try {
    const fresh = await fetch(request);
    if (fresh.status === 200) await keep(cache, request, fresh.clone(), fixed);
    return isolated(fresh);
  } catch (error) {
    const old = await cache.match(request, { ignoreSearch: !fixed });
    if (old) return isolated(old);
    throw error;
  }
}

async function keep(cache: Cache, request: Request, response: Response, fixed: boolean): Promise<void> {
  try {
    // Files of earlier versions go.
    if (fixed) for (const old of await cache.keys(request, { ignoreSearch: true })) if (old.url !== request.url) await cache.delete(old);
    await cache.put(request, response);
  } catch {
    // no space: the page then needs the network
  }
}

function isolated(response: Response): Response {
  if (response.status === 0) return response;
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
