// Shows the progress of an operation without a reload; pauses in a hidden tab.
"use strict";
const again = async () => {
  const shown = document.getElementById("progress");
  if (!shown || !("live" in shown.dataset)) return;
  if (!document.hidden && !shown.contains(document.activeElement)) {
    try {
      const answer = await fetch(location.href);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("progress");
      if (fresh) shown.replaceWith(fresh);
    } catch { /* The web process restarts: the next time. */ }
  }
  setTimeout(again, 2000);
};
addEventListener("load", () => setTimeout(again, 2000));
