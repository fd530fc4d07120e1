/**
 * The box to write in: Enter sends, Shift+Enter makes a new line, and it grows with the text.
 *
 * @param {HTMLFormElement} form
 * @param {HTMLTextAreaElement} text
 * @param {(text: string) => boolean} send gives whether the message was taken
 * @param {{read(): string, write(text: string)}} draft keeps what is not sent over a reload
 */
export function setUpComposer({ form, text, send, draft }) {
  const grow = () => {
    text.style.height = "auto";
    text.style.height = `${text.scrollHeight + text.offsetHeight - text.clientHeight}px`;
  };
  text.addEventListener("input", () => (grow(), draft.write(text.value)));
  text.addEventListener("keydown", (event) => {
    // While an input method composes (Chinese, Japanese, …), Enter belongs to it.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const said = text.value.trimEnd();
    if (said.trim() && send(said)) text.value = "";
    draft.write(text.value);
    grow();
    text.focus();
  });
  // Some browsers keep what was written over a reload, without an event.
  text.value ||= draft.read();
  grow();
}
