"""The report's page in a real browser: nothing a record says runs, nothing overflows.

The browser is Debian's chromium, which e2e/run installs. The page's content security policy is
switched off where hostile texts are tried: they must be harmless by escaping alone.
"""

from __future__ import annotations

import os
import socket

import pytest
from auditrecords import RECORDS, denied, finding, hostile_summary
from browser import PROGRAM, Browser
from scripted import LOGS_HEAD, ScriptedEngine, chunk, stdcopy_frame

from _dockeraudit.page import render_html
from _dockeraudit.pageparts import PAGE_SECTIONS
from _dockeraudit.summary import AuditSummary
from conftest import wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PROGRAM and not os.environ.get("CI"), reason="no chromium here: `make e2e` installs it"
    ),
]

WIDTHS = (360, 800, 1440)
SCRIPT = "document.title='pwned'"
HOSTILE = {
    "markup": f"</title></style></table><script>{SCRIPT}</script><img src=x onerror={SCRIPT}>"
    f"<svg onload={SCRIPT}><a href='javascript:{SCRIPT}'>x</a><!--",
    "quotes": f"'\" onmouseover={SCRIPT} style='position:fixed' `${{{SCRIPT}}}` &quot;&#39;><b>",
    "right to left": "\u202e\u2067שלום עולם\u2069 مرحبا بالعالم \u200f abc \u061c",
    "4 kB without a space": "W" * 4096,
    "4 kB of marks": "e" + "\u0301" * 2048,
    "4 kB of markup": "<b id=pwned>" * 340,
    "controls": "\x00\x1b[2J\r\n\x7f\x9b\u2028\ud800",
}


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        browser.call("Page.setBypassCSP", enabled=True)
        yield browser


def page_of(folder, text):
    """A file with the page of a log that says `text` in every field, live parts included."""
    summary = hostile_summary(text)
    live = {
        "streams": [{"container": text, "endpoint": text, "client": {"address": text}, "bytes": 5}],
        "counters": {"written": 5},
        "engine_up": True,
    }
    path = folder / "page.html"
    path.write_text(render_html(summary, title=f"{text}", live=live, made=text), encoding="utf-8")
    return f"file://{path}"


# What stands beyond the page's right edge and is not in a region that scrolls.
OVERFLOWING = """[...document.body.querySelectorAll('*')]
.filter(e => !e.closest('.scroll,thead') && e.getBoundingClientRect().right > innerWidth + 1)
.map(e => e.outerHTML.slice(0, 80))"""
# Elements and attributes that the page has no use for; its own script and controls are not meant.
FOREIGN = """(() => {
  const kinds = 'script,img,iframe,object,embed,form,input,b[id],link,base,audio,video';
  const own = e => e.matches('.tools input') || e === document.body.lastElementChild;
  const leads = a => a.name == 'href' && /script:/i.test(a.value);
  const acts = a => /^on|^src$|^srcdoc$/.test(a.name) || leads(a);
  return [...document.querySelectorAll(kinds)].filter(e => !own(e))
    .concat([...document.querySelectorAll('*')].filter(e => [...e.attributes].some(acts)))
    .map(e => e.outerHTML.slice(0, 80));
})()"""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_run_nothing_and_overflow_nothing(browser, folder, name):
    url = page_of(folder, HOSTILE[name])
    for width in WIDTHS:
        browser.open(url, width)
        assert browser.run("document.title") != "pwned"
        assert browser.run(FOREIGN) == []
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run(OVERFLOWING) == []
    assert [request["request"]["url"] for request in browser.told("Network.requestWillBeSent")] == [
        url
    ]
    assert (
        not browser.told("Runtime.exceptionThrown")
        + browser.told("Log.entryAdded")
        + browser.told("Page.javascriptDialogOpening")
    )


def test_the_browser_would_tell(browser, folder):
    """What the test above looks for is found where it is."""
    path = folder / "bad.html"
    path.write_text(
        "<!doctype html><title>x</title><body><div style='width:900px'>wide</div>"
        f"<img src=x onerror={SCRIPT}><script>{SCRIPT}</script><p>"
    )
    browser.open(f"file://{path}", 360)
    assert browser.run("document.title") == "pwned"
    assert len(browser.run(FOREIGN)) == 3 and browser.run(OVERFLOWING)
    assert browser.run("document.documentElement.scrollWidth") > 360


# Each text's contrast with its background (WCAG 2.1, 1.4.3), the lowest first. Half-transparent
# backgrounds are laid over one another.
CONTRAST = """(() => {
  const parse = colour => {
    const n = colour.match(/[\\d.]+/g).map(Number);
    return [n[0], n[1], n[2], n.length > 3 ? n[3] : 1];
  };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const linear = x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  const light = colour => {
    const v = colour.slice(0, 3).map(x => linear(x / 255));
    return .2126 * v[0] + .7152 * v[1] + .0722 * v[2];
  };
  const found = [];
  for (const e of document.body.querySelectorAll('*')) {
    const hasText = [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim());
    if (e.closest('svg') || !hasText) continue;
    const grounds = [];
    for (let p = e; p; p = p.parentElement) {
      grounds.push(parse(getComputedStyle(p).backgroundColor));
    }
    const ground = grounds.reverse().reduce((under, g) => over(g, under), [255, 255, 255, 1]);
    const ink = over(parse(getComputedStyle(e).color), ground);
    const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
    found.push([(a + .05) / (b + .05), e.outerHTML.slice(0, 80)]);
  }
  return found.sort((x, y) => x[0] - y[0]);
})()"""


UNFOLD = "document.querySelectorAll('details').forEach(fold => { fold.open = true; })"


def demonstration(folder):
    """A page with every section, and heat of every strength."""
    summary = AuditSummary()
    more = [
        finding(
            container_id=f"{number:064x}",
            container_name=f"web-{number}",
            severity=severity,
            count=4**number,
            rule=severity,
            pattern=f"Rule {severity}",
        )
        for number in range(10)
        for severity in ("HIGH", "MEDIUM", "LOW")
    ]
    many = [finding(fingerprint=f"{number:016x}", rule=f"r{number}") for number in range(40)]
    learned = denied(event="would_deny", path="/learned")
    summary.add_all([*RECORDS, *more, *many, learned])
    summary.settle()
    live = {
        "streams": [{"container": "web", "endpoint": "logs", "client": {"uid": 0}, "bytes": 5}],
        "counters": {"written": 5, "degraded": True},
        "engine_up": False,
    }
    path = folder / "page.html"
    path.write_text(render_html(summary, title="report", live=live, made="now"), encoding="utf-8")
    return f"file://{path}"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_has_contrast(browser, folder, dark):
    url = demonstration(folder)
    for width in (360, 1440):
        browser.open(url, width, dark=dark)
        browser.run(UNFOLD)
        contrasts = browser.run(CONTRAST)
        assert len(contrasts) > 100 and contrasts[0][0] >= 4.5, contrasts[:3]
        ground = browser.run("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, ground[4:-1].split(", "))) < 200) == dark


@pytest.mark.parametrize("width", WIDTHS)
def test_a_screen_reader_hears_tables_charts_and_headings(browser, folder, width):
    browser.open(demonstration(folder), width)
    browser.run(UNFOLD)
    nodes = [
        node
        for node in browser.call("Accessibility.getFullAXTree")["nodes"]
        if not node.get("ignored")
    ]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]
    headings = [name for role, name in named if role == "heading"]
    assert headings == ["report", *(heading for _, heading in PAGE_SECTIONS.values())]
    tables = [name for role, name in named if role == "table"]
    assert sorted(tables) == [
        "Containers",
        "Findings by container and pattern",
        "HIGH secrets",
        "LOW secrets",
        "Latest findings",
        "MEDIUM secrets",
        "Open streams",
        "Readers",
        "Refused requests",
        "Requests that learn mode let through",
    ]
    assert ("columnheader", "read by") in named and ("searchbox", "Search") in named
    assert sum(role == "row" for role, _ in named) > 40
    assert sum(role == "cell" for role, _ in named) > 150
    charts = [name for role, name in named if role in ("image", "img")]
    assert len(charts) == 3 and charts[0].startswith("HIGH: ") and "findings" in charts[0]
    assert browser.run(
        "[...document.querySelectorAll('nav a')].map(a => a.getAttribute('href'))"
        ".every(href => href === '' || document.querySelector(href))"
    )


def test_what_scrolls_can_be_reached_by_keyboard(browser, folder):
    browser.open(demonstration(folder), 360)
    assert (
        browser.run(
            "[...document.querySelectorAll('*')].filter(e => e.scrollWidth > e.clientWidth + 1"
            " && getComputedStyle(e).overflowX == 'auto' && e.tabIndex < 0).length"
        )
        == 0
    )
    assert browser.run("(e => e.scrollWidth > e.clientWidth)(document.querySelector('.scroll'))")


def shown_rows(browser, table):
    """The texts of a table's rows that are shown."""
    rows = f"[...document.querySelector(`table[aria-label='{table}']`).tBodies[0].rows]"
    return browser.run(f"{rows}.filter(row => !row.hidden).map(row => row.innerText)")


def choose(browser, control, value):
    """Set a control of the first table of secrets, as a person does."""
    browser.run(
        f"(() => {{ const one = document.querySelector('#secrets .tools {control}');"
        f"one.value = '{value}'; one.dispatchEvent(new Event('input', {{bubbles: true}}));"
        "one.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )


def test_tables_show_a_screen_of_rows_and_can_be_sorted_and_searched(browser, folder):
    browser.open(demonstration(folder), 1440)
    assert len(shown_rows(browser, "HIGH secrets")) == 15
    browser.run("document.querySelector('#secrets .more').click()")
    everything = shown_rows(browser, "HIGH secrets")
    assert len(everything) == 42
    choose(browser, "input", "0000000000000007")
    assert [row.split()[2] for row in shown_rows(browser, "HIGH secrets")] == ["0000000000000007"]
    choose(browser, "input", "")
    choose(browser, "select", "1 1")
    rising = [
        int(row.split("\t")[1].replace(",", "")) for row in shown_rows(browser, "HIGH secrets")
    ]
    assert rising == sorted(rising) and len(rising) == 42
    choose(browser, "select", "")
    assert shown_rows(browser, "HIGH secrets") == everything


def test_a_link_opens_the_fold_and_shows_the_row_it_leads_to(browser, folder):
    browser.open(demonstration(folder), 1440)
    target = "document.querySelector('#secrets-HIGH tbody tr:last-child').id"
    last = browser.run(target)
    browser.run(
        "document.querySelectorAll('section > details').forEach(fold => { fold.open = false; });"
        f"location.hash = '{last}'"
    )
    visible = f"""(() => {{
      const row = document.getElementById('{last}'), box = row.getBoundingClientRect();
      return !row.hidden && box.height > 0 && box.top >= 0 && box.bottom <= innerHeight;
    }})()"""
    wait_for(lambda: browser.run(visible), "the row to be shown")
    in_low = browser.run("document.querySelector('#secrets-LOW tr[id]').id")
    browser.run(f"location.hash = '{in_low}'")
    wait_for(lambda: browser.run("document.querySelector('#secrets-LOW').open"), "the fold to open")


def test_the_page_works_without_its_script(browser, folder):
    url = demonstration(folder)
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(url, 1440)
        nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
        rows = [node for node in nodes if node["role"].get("value") == "row"]
        assert len(rows) > 60
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_the_policy_admits_the_page_s_own_script_and_no_other(folder):
    url = demonstration(folder)
    path = folder / "page.html"
    path.write_text(path.read_text().replace("</main>", f"</main><script>{SCRIPT}</script>"))
    with Browser() as browser:
        browser.open(url, 1440)
        assert browser.run("document.title") == "report"
        assert browser.run("document.querySelectorAll('.tools').length") > 3
        refused = [entry["entry"]["text"] for entry in browser.told("Log.entryAdded")]
        assert len(refused) == 1 and "Content Security Policy" in refused[0]


def test_it_prints_on_white_with_nothing_cut(browser, folder):
    browser.open(demonstration(folder), 794, dark=True, media="print")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert (
        browser.run("document.documentElement.scrollWidth") <= 794
        and browser.run("getComputedStyle(document.querySelector('.scroll')).overflowX")
        == "visible"
    )
    assert browser.run(CONTRAST)[0][0] >= 4.5


@pytest.fixture
def live_proxy(folder, start_proxy):
    """A proxy with one stream open that has a finding: the live page's address, the client."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def follow(sock, head):
        sock.sendall(
            LOGS_HEAD + chunk(stdcopy_frame(1, b"pass" + b"word=" + b"hunter22hunter22\n"))
        )
        sock.recv(1)

    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        engine.routes["/containers/web/logs"] = follow
        proxy = start_proxy(engine.path, "--admin-listen", f"tcp://127.0.0.1:{port}")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(proxy.socket)
            client.sendall(
                b"GET /v1.43/containers/web/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: docker\r\n\r\n"
            )
            proxy.wait_records("finding")
            yield f"http://127.0.0.1:{port}/", client
        proxy.wait_records("stream_close")


def test_the_live_page_shows_what_runs_now(browser, live_proxy):
    url, _ = live_proxy
    for width in WIDTHS:
        browser.open(url, width)
        assert browser.run("document.documentElement.scrollWidth") <= width
    now = browser.run("document.querySelector('#now').innerText")
    latest = browser.run("document.querySelector('#latest').innerText")
    head = browser.told("Network.responseReceived")[0]["response"]["headers"]
    assert head["X-Frame-Options"] == "DENY" and head["X-Content-Type-Options"] == "nosniff"
    assert "The engine answers. The audit log is written." in now
    assert "web" in now and "logs" in now
    assert "Password" in latest and "stdout, line 1" in latest
    assert "hunter22" not in browser.run("document.documentElement.outerHTML")


def test_the_live_page_refreshes_itself_and_keeps_its_place(live_proxy):
    url, client = live_proxy
    with Browser() as browser:
        browser.open(url, 1440, height=400)
        assert "No stream is open" not in browser.run("document.querySelector('#now').innerText")
        browser.run(
            "document.querySelector('#time-fold').open = false;"
            "document.querySelector('#learned-fold')?.toggleAttribute('open', true);"
            "scrollTo(0, 150); window.sameDocument = true"
        )
        client.close()
        wait_for(
            lambda: "No stream is open" in browser.run("document.querySelector('#now').innerText"),
            "the page to refresh itself",
        )
        kept = "[window.sameDocument, document.querySelector('#time-fold').open, scrollY]"
        assert browser.run(kept) == [True, False, 150]
        assert not browser.told("Log.entryAdded") + browser.told("Runtime.exceptionThrown")
