"""The few pieces of HTML a report is made of; every text is escaped here.

This module decides markup and style. It must not know what a report says. The page needs no network: style and script
are inline, pictures are inline SVG.
"""

# ruff: noqa: E501 - style sheet and script are data

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
:root{--ink:#1d2329;--dim:#5b6670;--line:#d9dee3;--soft:#f5f7f9;--accent:#0a5c8f;--alert:#a3121f;--ok:#11703c}
*{box-sizing:border-box}
body{margin:0;background:#fff;color:var(--ink);font:15px/1.5 system-ui,"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:1060px;margin:0 auto;padding:28px 24px 60px}
h1{font-size:25px;line-height:1.25;margin:0 0 4px}h2{font-size:18px;margin:38px 0 8px;border-bottom:1px solid var(--line);padding-bottom:4px}
h3{font-size:15px;margin:20px 0 6px}p{margin:6px 0 10px;max-width:78ch}.dim{color:var(--dim)}
.verdict{background:var(--soft);border-left:4px solid var(--accent);padding:12px 16px;margin:16px 0;font-size:16px}
.verdict.bad{border-color:var(--alert)}.verdict p{max-width:none;margin:3px 0}
.warn{background:#fff6e0;border-left:4px solid #d08900;padding:8px 16px;margin:12px 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(215px,1fr));gap:12px;margin:14px 0}
.card{border:1px solid var(--line);border-radius:6px;padding:10px 14px}.card b{display:block;font-size:20px;line-height:1.3}
.card span{color:var(--dim);font-size:13px;display:block}
table{border-collapse:collapse;width:100%;font-size:13px;margin:8px 0 14px}
th,td{padding:4px 7px;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{background:var(--soft);font-weight:600;white-space:nowrap}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.band{white-space:nowrap}.wide th{white-space:normal}.sortable th{cursor:pointer}.sortable th:hover{color:var(--accent)}.wide{overflow-x:auto}
.scroll{max-height:560px;overflow:auto;border:1px solid var(--line)}.scroll th{position:sticky;top:0}
code,pre{font:13px ui-monospace,"DejaVu Sans Mono",monospace}pre{background:var(--soft);padding:10px 14px;overflow-x:auto;white-space:pre-wrap}
figure{margin:10px 0}.photos{display:grid;grid-template-columns:repeat(auto-fit,minmax(280px,1fr));gap:12px}.photos img{width:100%}figure svg{width:100%;height:auto}figcaption{color:var(--dim);font-size:13px}
ul{margin:6px 0 10px;padding-left:22px}li{margin:2px 0}dt{font-weight:600;margin-top:8px}dd{margin:0 0 0 18px;max-width:80ch}
nav{font-size:13px;margin:8px 0}nav a{margin-right:14px;color:var(--accent);text-decoration:none}
.answers{display:grid;grid-template-columns:repeat(auto-fit,minmax(220px,1fr));gap:12px;margin:16px 0}
.answer{display:block;border:1px solid var(--line);border-top:5px solid var(--dim);border-radius:6px;padding:10px 14px;color:inherit;text-decoration:none}
.answer b{display:block;font-size:16px;margin-bottom:3px}.answer span{font-size:14px}.answer:hover{background:var(--soft)}.answer:after{content:"proof below";color:var(--accent);font-size:12px;display:block;margin-top:4px}
.answer.good{border-top-color:var(--ok)}.answer.doubtful{border-top-color:#d08900}.answer.bad{border-top-color:var(--alert)}
.net .graphs{display:flex;flex-wrap:wrap;gap:18px;align-items:flex-start}.net .graphs figure{flex:1 1 320px;min-width:0}.net svg{width:100%;height:auto}
.net text{font:12px ui-monospace,"DejaVu Sans Mono",monospace}.net .name{font-weight:600}.net rect{stroke:#8a97a3}.net .outside rect{fill:#fff;stroke-dasharray:4 3}
.net .link{fill:none;stroke:#8a97a3;stroke-opacity:.65}.net .block{cursor:pointer}.net .block:hover rect,.net .block:focus rect,.net .block.on rect{stroke:#d55e00;stroke-width:2.5}.net .block:focus{outline:none}
.net .modes button{font:inherit;font-size:13px;border:1px solid var(--line);background:#fff;border-radius:4px;padding:3px 9px;margin:2px 3px;cursor:pointer}.net .modes button[aria-pressed=true]{background:var(--accent);color:#fff;border-color:var(--accent)}
.net .block-rows{display:none}.net .block-rows:target,.net .block-rows.on{display:block}.net.live .block-rows:not(.on){display:none}.net .block-rows h3{margin:4px 0}
.net.live .rows{position:sticky;bottom:0;max-height:46vh;overflow:auto;background:#fff;border-top:2px solid var(--accent);padding:2px 6px;box-shadow:0 -4px 10px #0002}
@media(max-width:640px){main{padding:16px 12px 40px}}
@media print{.net.live .rows{position:static;max-height:none;box-shadow:none;border:0}.net .modes,.net .hint,.answer:after{display:none!important}.net .graphs figure{break-inside:auto}.net rect,.answer{print-color-adjust:exact;-webkit-print-color-adjust:exact}
main{max-width:none;padding:0}.scroll{max-height:none;overflow:visible;border:0}.scroll th{position:static}nav{display:none}
h2{break-after:avoid}figure,.card,.verdict{break-inside:avoid}body{font-size:11px}table{font-size:9.5px}}
"""

SCRIPT = """
document.querySelectorAll('.net').forEach(function(net){net.classList.add('live');var modes=net.querySelector('.modes');modes.hidden=false;
modes.addEventListener('click',function(event){var key=event.target.dataset.by;if(!key)return;
modes.querySelectorAll('button').forEach(function(button){button.setAttribute('aria-pressed',String(button===event.target))});
net.querySelectorAll('figcaption [data-by]').forEach(function(one){one.hidden=one.dataset.by!==key});
net.querySelectorAll('a.block').forEach(function(box){box.querySelector('rect').setAttribute('fill',box.getAttribute('data-f-'+key));
box.querySelector('g').setAttribute('fill',box.getAttribute('data-i-'+key));box.querySelector('.value').textContent=box.getAttribute('data-t-'+key)})});
net.querySelectorAll('a.block').forEach(function(box){box.addEventListener('click',function(event){event.preventDefault();
net.querySelectorAll('.on').forEach(function(one){one.classList.remove('on')});net.querySelector('.hint').hidden=true;
var rows=document.getElementById(box.getAttribute('href').slice(1));box.classList.add('on');rows.classList.add('on')})})});
document.querySelectorAll('table.sortable th').forEach(function(th){th.addEventListener('click',function(){
var table=th.closest('table'),body=table.tBodies[0],column=th.cellIndex,down=th.dataset.down!=='1';
table.querySelectorAll('th').forEach(function(other){delete other.dataset.down});th.dataset.down=down?'1':'0';
Array.from(body.rows).map(function(row){var cell=row.cells[column];return [cell.dataset.v!==undefined?parseFloat(cell.dataset.v):cell.textContent,row]})
.sort(function(a,b){var order=typeof a[0]==='number'?b[0]-a[0]:String(a[0]).localeCompare(b[0]);return down?order:-order})
.forEach(function(pair){body.appendChild(pair[1])})})});
"""


_BAND = re.compile(r"\[[^\[\]]+ \.\. [^\[\]]+\]")
"""The low and high of an interval, as all formatters write them; broken over lines they cannot be read."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A table cell: what is shown, and the number to sort by where it is one."""

    text: str
    value: float | None = None


def number(value: float, text: str | None = None) -> Cell:
    """A right-aligned cell; integers get thin groups of three digits."""
    if text is None:
        text = f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else f"{value:.4g}"
    return Cell(text, float(value))


def text(value: str) -> str:
    """Escaped text."""
    return escape(value, quote=True)


def paragraph(value: str, kind: str = "") -> str:
    """One escaped paragraph."""
    return f"<p{_class(kind)}>{text(value)}</p>"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def table(
    head: Sequence[str], rows: Iterable[Sequence[Cell | str]], sortable: bool = False, scroll: bool = False
) -> str:
    """A table; a column is right-aligned where its first cell is a number."""
    listed = [[c if isinstance(c, Cell) else Cell(c) for c in row] for row in rows]
    numeric = [bool(listed) and listed[0][i].value is not None for i in range(len(head))]
    top = "".join(f"<th{_class('n' if n else '')}>{text(h)}</th>" for h, n in zip(head, numeric))
    body = "".join("<tr>" + "".join(_cell(c) for c in row) + "</tr>" for row in listed)
    html = f"<table{_class('sortable' if sortable else '')}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="{"scroll" if scroll else "wide"}">{html}</div>'


def _cell(cell: Cell) -> str:
    if cell.value is None:
        whole_bands = _BAND.sub(r'<span class="band">\g<0></span>', text(cell.text))
        return f"<td>{whole_bands}</td>"
    return f'<td class="n" data-v="{cell.value:.12g}">{text(cell.text)}</td>'


def bullets(items: Iterable[str]) -> str:
    """An escaped list."""
    return "<ul>" + "".join(f"<li>{text(i)}</li>" for i in items) + "</ul>"


def definitions(items: Iterable[tuple[str, str]]) -> str:
    """Term and explanation, escaped."""
    return "<dl>" + "".join(f"<dt>{text(a)}</dt><dd>{text(b)}</dd>" for a, b in items) + "</dl>"


def cards(items: Iterable[tuple[str, str, str]]) -> str:
    """Boxes of (label, value, remark)."""
    return (
        '<div class="cards">'
        + "".join(
            f'<div class="card"><span>{text(a)}</span><b>{text(b)}</b><span>{text(c)}</span></div>' for a, b, c in items
        )
        + "</div>"
    )


def figure(svg: str, caption: str) -> str:
    """An inline picture (trusted SVG of our own) with a caption."""
    return f"<figure>{svg}<figcaption>{text(caption)}</figcaption></figure>"


def photographs(items: Iterable[tuple[str, bytes]]) -> str:
    """JPEG pictures side by side with captions."""
    frames = (
        f'<figure><img alt="{text(caption)}" src="data:image/jpeg;base64,{b64encode(data).decode()}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
        for caption, data in items
    )
    return '<div class="photos">' + "".join(frames) + "</div>"


def section(anchor: str, title: str, *parts: str) -> str:
    """A titled part of the page."""
    return f'<section id="{anchor}"><h2>{text(title)}</h2>{"".join(parts)}</section>'


def page(title: str, head: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """The whole page; ``sections``: (anchor, title, body of trusted HTML)."""
    links = "".join(f'<a href="#{anchor}">{text(name)}</a>' for anchor, name, _ in sections)
    body = "".join(section(anchor, name, html) for anchor, name, html in sections)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head><body><main>{head}<nav>{links}</nav>{body}</main>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )
