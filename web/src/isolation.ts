/** Starts the service worker of an exported page, and loads the page once more if that enables threads. */

const RELOADED = "deop-reloaded"; // in sessionStorage: not twice
const PATIENCE = 4000; // milliseconds

/** Resolves to false if the page is being loaded again. */
export async function isolate(): Promise<boolean> {
  if (!isSecureContext || !("serviceWorker" in navigator)) return true;
  try {
    await navigator.serviceWorker.register("service.js");
    if (crossOriginIsolated || sessionStorage.getItem(RELOADED)) return true;
    const controlled = new Promise<boolean>((resolve) => {
      if (navigator.serviceWorker.controller) resolve(true);
      navigator.serviceWorker.addEventListener("controllerchange", () => resolve(true));
      setTimeout(() => resolve(false), PATIENCE);
    });
    if (!(await controlled)) return true;
    sessionStorage.setItem(RELOADED, "1");
    location.reload();
    return false;
  } catch {
    return true; // not allowed here: the page works with one thread
  }
}
