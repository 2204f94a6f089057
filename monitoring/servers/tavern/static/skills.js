// Puts a symbol that few keyboards have into the answer, where the cursor is.
"use strict";
document.addEventListener("click", (event) => {
  const key = event.target.closest("[data-symbol]"), answer = document.getElementById("answer");
  if (!key || !answer) return;
  answer.setRangeText(key.textContent, answer.selectionStart, answer.selectionEnd, "end");
  answer.focus();
});
