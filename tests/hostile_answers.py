"""What a model might say that a page must not do: twenty answers, each of which acts in a page that believes it."""

ELSEWHERE = "http://127.0.0.1:9/"  # nobody listens there, and every request to it is seen
HOSTILE_ANSWERS = (
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "<svg onload=alert(1)>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    f"![a picture]({ELSEWHERE}secret.png)",
    f'![x]({ELSEWHERE}?q=1 "t\\" onerror=\\"alert(1)")',
    f"[![nested]({ELSEWHERE}n.png)](javascript:alert(1))",
    "[click](javascript:alert(1))",
    "[click](  jaVa\tscript&colon;alert(1))",
    "[click](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "<javascript:alert(1)> [ref]\n\n[ref]: javascript:alert(1)",
    f'<iframe src="{ELSEWHERE}"></iframe><object data="{ELSEWHERE}"></object>',
    f'<link rel=stylesheet href="{ELSEWHERE}a.css"><style>@import "{ELSEWHERE}b.css"</style>',
    f'<meta http-equiv="refresh" content="0;url={ELSEWHERE}"><base href="{ELSEWHERE}">',
    f'<form action="{ELSEWHERE}"><button autofocus onfocus=alert(1)>ok</button></form>',
    '```js" onmouseover="alert(1)\n</code></pre><script>alert(1)</script>\n```',
    '| a |\n|---|\n| <img src=x onerror=alert(1)> |\n\n# <b onclick=alert(1)>head</b>',
    f'<math><mtext><table><mglyph><style><img src="{ELSEWHERE}m" onerror=alert(1)>',
    "safe \u202egnp.exe\u202c \u2066isolated\u2069 \u0000 \ufffe end",
    '</think></div></li></template><script>alert(1)</script>{{7*7}}{% raw %}<!--"\'`',
)  # fmt: skip
