"""`datasets`: load_dataset("json"), then `map` with transformers' chat template and its mask; row by row or `batched`.

The template marks answers with `generation`, as transformers' mask of assistant tokens asks for: one rendering a row,
the quickest way that transformers has. Whole rows are kept, as by ours.
"""

from pathlib import Path

import datasets
from transformers import AutoTokenizer

from core.paths import BUNDLED_TOKENIZER

HEAD, END = "{{- '<|im_start|>assistant\\n' -}}", "{{- '<|im_end|>\\n' -}}\n    {%- elif not"
datasets.disable_progress_bars()


def run(rows: Path, work: Path, how: str) -> dict[str, int]:
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_TOKENIZER)
    tokenizer.chat_template = marked(tokenizer.chat_template)

    def tokenise(given: dict) -> dict:
        """Of one row, or of many."""
        found = tokenizer.apply_chat_template(given["messages"], return_dict=True, return_assistant_tokens_mask=True)
        return {"input_ids": found["input_ids"], "trained": found["assistant_masks"]}

    loaded = datasets.load_dataset("json", data_files=str(rows), split="train", cache_dir=str(work / "cache"))
    done = loaded.map(tokenise, batched=how == "batched", remove_columns=loaded.column_names)
    columns = done.with_format("arrow")[:]
    return {
        "tokens": sum(len(ids) for ids in columns["input_ids"]),
        "trained_tokens": sum(sum(mask.as_py()) for mask in columns["trained"]),
    }


def marked(template: str) -> str:
    """The realm's template with its answers, up to their last special token, inside `generation`."""
    assert template.count(HEAD) == 2 and template.count(END) == 1
    template = template.replace(HEAD, f"{HEAD}{{%- generation -%}}", 1)
    return template.replace(
        END, END.replace("<|im_end|>\\n' -}}", "<|im_end|>' -}}{%- endgeneration -%}{{- '\\n' -}}"), 1
    )
