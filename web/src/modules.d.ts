/** Made by `vocabularies.mjs` when the page is built. */
declare module "deop:vocabularies" {
  const lists: Readonly<Record<string, { readonly names: readonly string[]; readonly things: string }>>;
  export default lists;
}
