"""From the markdown that a model wrote to HTML that can do nothing; it knows nothing about models, pages or talks.

What a model says is as hostile as what it has read. Tags are text here, links lead to http, https and mail only and open
a page of their own, pictures are words (the address of a picture could carry a secret away). Every character of the
answer passes through the escaping of one renderer, so nothing is left for a sanitiser to take out; a test holds that.
"""

from html import escape

from markdown_it import MarkdownIt

LONGEST = 16_384  # characters: some markdown takes time that grows with the square, and this is 0.3 s of it at most
_SCHEMES = ("http://", "https://", "mailto:")
_AWAY = {"target": "_blank", "rel": "noopener noreferrer nofollow"}
_OVERRIDES = {
    0x202D: "⟨LRO⟩",
    0x202E: "⟨RLO⟩",
}  # turn the direction of what follows, so that it reads as something else


def _parser() -> MarkdownIt:
    parser = MarkdownIt("js-default", {"html": False, "linkify": False, "breaks": True, "maxNesting": 20})
    parser.disable("image")
    parser.validateLink = lambda address: address.strip().lower().startswith(_SCHEMES)
    parser.add_render_rule("link_open", _link_opened)
    parser.core.ruler.push("fit_in", _fit_in)
    return parser


def _fit_in(state) -> None:
    """A page has one first heading, and it is not the model's; the alignment of columns would be a style of its own."""
    for token in state.tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
        token.attrs.pop("style", None)


def _link_opened(renderer, tokens, index, options, env) -> str:
    tokens[index].attrs |= _AWAY
    return renderer.renderToken(tokens, index, options, env)


_PARSER = _parser()


def to_html(text: str) -> str:
    """`text` as HTML of paragraphs, lists, tables, code, quotes, headings, emphasis and links to elsewhere."""
    text = text.translate(_OVERRIDES)
    return _PARSER.render(text) if len(text) <= LONGEST else f"<pre>{escape(text)}</pre>"
