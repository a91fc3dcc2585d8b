// Shows and copies the request that the page would send, for other programs.

import { BASE_URL } from "./api.js";
import { aboutFiles, curlOf, pythonOf } from "./snippets.js";

const byId = (id) => document.getElementById(id);

/** Wire the two buttons. `requestNow` returns the request of what the page holds, `settings` what the server says. */
export function offerProgram(requestNow, settings, say) {
  const copy = (write, kind) => async () => {
    const request = await requestNow();
    const { key_needed: keyNeeded, session_seconds: sessionSeconds } = settings();
    const snippet = byId("snippet");
    snippet.value = write(request, BASE_URL, keyNeeded);
    snippet.hidden = false;
    byId("snippet-files").textContent = aboutFiles(request, sessionSeconds);
    try {
      await navigator.clipboard.writeText(snippet.value);
      say(`Copied as ${kind}.`);
    } catch {
      // a page that is neither https nor on localhost may not write to the clipboard
      snippet.focus();
      snippet.select();
      say("This browser does not let the page copy: the text is selected, copy it with Ctrl+C.");
    }
  };
  byId("copy-curl").addEventListener("click", copy(curlOf, "curl"));
  byId("copy-python").addEventListener("click", copy(pythonOf, "Python"));
}
