/** What looks like an address of the web; nothing else becomes a link. */
const ADDRESS = /https?:\/\/[^\s<>"]+/gi;
/** What stands behind an address in a sentence does not belong to it. */
const AFTER = /[.,;:!?'")\]}]+$/;

/** The text as nodes, its addresses as links. Nothing of it is read as HTML. */
export function withLinks(text) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(ADDRESS)) {
    const address = match[0].replace(AFTER, "");
    if (!URL.canParse?.(address)) continue;
    nodes.push(text.slice(end, match.index));
    const link = document.createElement("a");
    link.href = address;
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    link.textContent = address;
    nodes.push(link);
    end = match.index + address.length;
  }
  nodes.push(text.slice(end));
  return nodes;
}
