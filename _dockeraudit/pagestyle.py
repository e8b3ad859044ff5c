"""How the report's page looks, and the few lines of script that sort and search its tables.

The page works without the script: it then shows all of its rows, and the folds open by hand.
"""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root{
color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--paper:#fff;--card:#f6f8fa;--line:#d5dae0;
--high:#b3122b;--medium:#8f5200;--low:#0b62a8;--high-bar:#d1344b;--medium-bar:#dd9a2b;
--low-bar:#5aa1dd;--heat:179,18,43
}
@media(prefers-color-scheme:dark){:root{
--ink:#e6eaef;--soft:#9aa5b1;--paper:#0f1318;--card:#181e25;--line:#303842;
--high:#ff8b98;--medium:#f2b55c;--low:#84c3ff;--high-bar:#e0566a;--medium-bar:#c98a2a;
--low-bar:#3f86c4;--heat:240,90,110
}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;overflow-wrap:anywhere;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main,header,footer{max-width:76rem;margin:0 auto;padding:0 1rem}
header{padding-top:1.5rem}
h1{font-size:1.5rem;line-height:1.25;margin:0;overflow-wrap:anywhere}
h2{font-size:1.125rem;margin:2.25rem 0 .6rem}
p{margin:.25rem 0}
.soft,footer,caption,figcaption{color:var(--soft);font-size:.875rem}
a{color:var(--low)}
nav{margin:.75rem 0 0;display:flex;flex-wrap:wrap;gap:.25rem 1rem;font-size:.9375rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.75rem;
margin:1.25rem 0 0;padding:0;list-style:none}
.tiles li{background:var(--card);border:1px solid var(--line);border-top:3px solid var(--line);
border-radius:.375rem;padding:.6rem .8rem}
.tiles b{display:block;font-size:1.6rem;line-height:1.2;font-variant-numeric:tabular-nums;
font-weight:650}
.tiles .HIGH{border-top-color:var(--high-bar)}.tiles .MEDIUM{border-top-color:var(--medium-bar)}
.tiles .LOW{border-top-color:var(--low-bar)}
.alert{border:1px solid var(--high);border-left-width:.4rem;border-radius:.375rem;
padding:.7rem 1rem;margin-top:1.5rem}
.alert h2{margin:0 0 .3rem;color:var(--high)}
.alert ul{margin:0;padding-left:1.2rem}
.calm{border:1px solid var(--line);border-radius:.375rem;padding:.6rem 1rem;margin-top:1.5rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9375rem}
th,td{text-align:left;vertical-align:top;padding:.4rem .75rem .4rem 0;
border-bottom:1px solid var(--line);overflow-wrap:anywhere}
thead th{font-size:.8125rem;color:var(--soft);font-weight:600;white-space:nowrap;
overflow-wrap:normal}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
th.n,td.n{padding-right:1.25rem}
caption{text-align:left}
.t{display:inline-block;max-width:100%;font-variant-numeric:tabular-nums}
.whole{white-space:nowrap}
code{font:.875rem ui-monospace,"SFMono-Regular","DejaVu Sans Mono",Consolas,monospace}
.names{margin:0;padding:0;list-style:none}
.names bdi,td bdi{unicode-bidi:isolate}
.badge{display:inline-block;white-space:nowrap;font-size:.75rem;font-weight:700;
letter-spacing:.03em;border:1px solid;border-radius:.25rem;padding:0 .35rem}
.HIGH .badge,.badge.HIGH{color:var(--high)}.badge.MEDIUM{color:var(--medium)}
.badge.LOW{color:var(--low)}
figure{margin:0}
.chart{display:grid;grid-template-columns:4.5rem 1fr;gap:0 .6rem;align-items:stretch;
margin-bottom:.5rem}
.chart .axis{display:flex;flex-direction:column;justify-content:space-between;text-align:right;
font-size:.75rem;color:var(--soft);font-variant-numeric:tabular-nums}
.chart svg{display:block;width:100%;height:3.75rem;border-bottom:1px solid var(--soft);
background:var(--card)}
.times{display:flex;justify-content:space-between;margin-left:5.1rem;font-size:.75rem;
color:var(--soft);font-variant-numeric:tabular-nums}
.bar-HIGH{fill:var(--high-bar)}.bar-MEDIUM{fill:var(--medium-bar)}.bar-LOW{fill:var(--low-bar)}
.gap{fill:var(--high);opacity:.28}
.swatch{display:inline-block;width:.9em;height:.9em;background:var(--high);opacity:.4;
vertical-align:-.1em}
.heat{width:auto}
.heat thead th{vertical-align:bottom;white-space:normal;max-width:8rem;min-width:4.5rem;
padding-right:.5rem}
.heat td{background:rgba(var(--heat),var(--w,0));text-align:right;padding:.4rem .6rem;
font-variant-numeric:tabular-nums;border:1px solid var(--paper)}
.heat tbody th{font-weight:400;min-width:8rem;max-width:20rem}
details{margin:.35rem 0}
summary{cursor:pointer;padding:.25rem 0}
summary h2{display:inline;margin:0}
section>details>summary{margin-top:1.75rem}
.fold>summary{font-weight:600}
.tools{display:flex;flex-wrap:wrap;gap:.5rem 1rem;margin:.5rem 0;font-size:.875rem}
.tools label{display:flex;gap:.4rem;align-items:baseline;color:var(--soft)}
.tools input,.tools select,.more{font:inherit;color:var(--ink);background:var(--card);
border:1px solid var(--soft);border-radius:.25rem;padding:.15rem .4rem;max-width:100%}
.more{cursor:pointer;margin:.4rem 0}
.hint{display:none}
tr:target,li:target{outline:2px solid var(--low);outline-offset:-1px}
.new{color:var(--low);font-size:.75rem;font-weight:700}
[hidden]{display:none!important}
footer{margin-top:2.5rem;padding-top:.75rem;padding-bottom:2rem}
:is(a,.scroll,summary,input,select,button):focus-visible{outline:2px solid var(--low);outline-offset:2px}
@media(max-width:45rem){
.hint{display:block}
.cards thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.cards,.cards tbody,.cards tr{display:block}
.cards tr{border:1px solid var(--line);border-radius:.375rem;padding:.4rem .8rem;
margin-bottom:.75rem;background:var(--card)}
.cards td,.cards td.n{display:grid;grid-template-columns:5.5rem minmax(0,1fr);gap:.5rem;border:0;
padding:.15rem 0;text-align:left;white-space:normal}
.chart{grid-template-columns:4.2rem 1fr}
.times{margin-left:4.8rem}
.times span:nth-child(2):not(:last-child){display:none}
.cards td::before{content:attr(data-label);color:var(--soft);font-size:.8125rem}
}
@media print{
:root{--ink:#000;--soft:#444;--paper:#fff;--card:#fff;--line:#bbb;--high:#a00d22;--medium:#7a4600;
--low:#0a4f88;--heat:179,18,43}
body{font-size:10pt}main,header,footer{max-width:none;padding:0}nav,.tools,.more,.hint{display:none!important}
.scroll{overflow:visible}
h2{break-after:avoid}tr,figure,.tiles,.alert{break-inside:avoid}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""
SCRIPT = """
(() => {
  const SCREEN = 15;
  const text = row => row.textContent.toLowerCase();
  const value = (row, at) => {
    const cell = row.cells[at], raw = cell.dataset.v ?? cell.textContent.trim();
    return raw !== '' && isFinite(raw) ? Number(raw) : raw.toLowerCase();
  };
  const make = (tag, properties) => Object.assign(document.createElement(tag), properties);

  function dress(table) {
    const body = table.tBodies[0], rows = [...body.rows];
    if (rows.length < 2) return;
    const state = table.dataset.key ? (kept[table.dataset.key] ??= {}) : {};
    const tools = make('div', {className: 'tools'});
    const search = make('input', {type: 'search', value: state.search ?? ''});
    const sort = make('select', {});
    sort.append(make('option', {value: '', textContent: 'as reported'}));
    [...table.tHead.rows[0].cells].forEach((head, at) => {
      const name = head.textContent;
      sort.append(make('option', {value: `${at} 1`, textContent: `${name}, rising`}));
      sort.append(make('option', {value: `${at} -1`, textContent: `${name}, falling`}));
    });
    sort.value = state.sort ?? '';
    const more = make('button', {type: 'button', className: 'more'});
    for (const [name, control] of [['Search', search], ['Sort by', sort]]) {
      const label = make('label', {textContent: name + ' '});
      label.append(control);
      tools.append(label);
    }
    table.before(tools);
    table.after(more);

    function show() {
      const wanted = search.value.toLowerCase().trim();
      const [at, way] = sort.value.split(' ').map(Number);
      const order = sort.value === '' ? rows : [...rows].sort((a, b) => {
        const x = value(a, at), y = value(b, at);
        return typeof x !== typeof y ? (typeof x === 'number' ? -1 : 1)
          : (x < y ? -way : x > y ? way : 0);
      });
      const found = order.filter(row => text(row).includes(wanted));
      const most = state.all ? Infinity : SCREEN;
      for (const row of rows) row.hidden = true;
      found.forEach((row, place) => { row.hidden = place >= most && !row.matches(':target'); });
      body.append(...order);
      const left = found.filter(row => row.hidden).length;
      more.hidden = left === 0;
      more.textContent = `Show ${left} more`;
      Object.assign(state, {search: search.value, sort: sort.value});
    }
    search.addEventListener('input', show);
    sort.addEventListener('change', show);
    more.addEventListener('click', () => { state.all = true; show(); });
    table.addEventListener('reveal', show);
    show();
  }

  function reveal() {
    const target = document.getElementById(location.hash.slice(1));
    if (!target) return;
    for (let up = target; up; up = up.parentElement) {
      if (up.tagName === 'DETAILS') up.open = true;
    }
    const table = target.closest('table');
    if (table) {
      const search = table.previousElementSibling?.querySelector('input');
      if (search && target.hidden) search.value = '';
      table.dispatchEvent(new Event('reveal'));
    }
    target.scrollIntoView({block: 'center'});
  }

  const kept = {};
  const dressAll = () => document.querySelectorAll('table.cards').forEach(dress);
  dressAll();
  addEventListener('hashchange', reveal);
  reveal();

  async function refresh() {
    if (document.hidden || document.activeElement?.closest('.tools')) return;
    const answer = await fetch(location.pathname, {cache: 'no-store'}).catch(() => null);
    if (!answer?.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html');
    const open = {};
    document.querySelectorAll('details[id]').forEach(fold => { open[fold.id] = fold.open; });
    fresh.querySelectorAll('details[id]').forEach(fold => {
      if (fold.id in open) fold.open = open[fold.id];
    });
    for (const part of ['header', 'main', 'footer']) {
      const before = document.querySelector(part), after = fresh.querySelector(part);
      if (after) before.replaceWith(document.importNode(after, true));
    }
    dressAll();
  }
  if (document.body.dataset.refresh) setInterval(refresh, 1000 * document.body.dataset.refresh);
})();
"""


def page_policy(live: bool) -> str:
    """The page's content security policy: its own style and script, and nothing else.

    The live page may ask for itself again. Nothing a record says can run, even unescaped.
    """
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    policy += "; base-uri 'none'; form-action 'none'"
    return policy + ("; connect-src 'self'" if live else "")
