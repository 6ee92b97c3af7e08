"""Pages of another site, in a real browser, against the Dagster UI: they launch nothing, read nothing and show nothing.

Each attack also runs against Dagster's own web server, which shows that it is a real one.
"""

import http.server
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import dagster as dg
import pytest
from playwright.sync_api import Browser, Page
from sqlalchemy.engine import URL

from seedtrust_ops.config import environment_for_child
from seedtrust_ops.supervisor.worker_stack import LOOPBACK, find_free_port, is_listening
from seedtrust_ops_tests.browser.pages import TIMEOUT_MILLISECONDS
from seedtrust_ops_tests.client.operations_server import run_process, run_web_server, run_worker, server_variables
from seedtrust_ops_tests.conftest import TEMPLATE
from seedtrust_ops_tests.support.dagster_homes import open_instance, temporary_dagster_home
from seedtrust_ops_tests.support.databases import temporary_database
from seedtrust_ops_tests.support.tiers import Resource, provides
from seedtrust_ops_tests.support.waiters import wait_until

pytestmark = pytest.mark.timeout(900)  # the first test waits for the worker and both web servers to start

ATTACK_TAG = "attack"
FOREIGN_HOST = "foreign.test"
REBOUND_HOST = "rebound.test"
"""Like any name that ends in `.test`, the browser finds both on this machine."""
LAUNCH = """mutation {{ launchRun(executionParams: {{
  selector: {{repositoryLocationName: "seedtrust_ops", repositoryName: "__repository__", jobName: "example"}},
  executionMetadata: {{tags: [{{key: "attack", value: "{attack}"}}]}}
}}) {{ __typename }} }}"""

SUBMIT_FORM = """([server, query, enctype]) => new Promise(done => {
  document.body.innerHTML = '<iframe name="target"></iframe><form method="post" target="target"></form>';
  const form = document.forms[0];
  form.action = `${server}/graphql?query=${encodeURIComponent(query)}`;
  form.enctype = enctype;
  form.innerHTML = '<input name="query">';
  form.elements[0].value = query;
  document.querySelector('iframe').onload = () => done();
  form.submit();
})"""
LOAD_IMAGE = """([server, query]) => new Promise(done => {
  const image = new Image();
  image.onload = image.onerror = () => done();
  image.src = `${server}/graphql?query=${encodeURIComponent(query)}`;
})"""
FETCH = """([server, query, type, mode]) => fetch(`${server}/graphql`, {
  method: 'POST', mode, credentials: 'include', headers: {'Content-Type': type}, body: JSON.stringify({query})
}).then(() => null, () => null)"""
OPEN_SOCKET = """([server]) => new Promise(done => {
  const socket = new WebSocket(`${server.replace('http', 'ws')}/graphql`, 'graphql-ws');
  socket.onopen = () => socket.send(JSON.stringify({type: 'connection_init'}));
  socket.onmessage = message => done(message.data);
  socket.onerror = () => done(null);
})"""
EMBED = """([server]) => new Promise(done => {
  document.body.innerHTML = '<iframe></iframe>';
  const frame = document.querySelector('iframe');
  frame.onload = () => done();
  frame.src = `${server}/server_info`;
})"""

SHOWN_OR_BLOCKED = re.compile("/server_info$|^chrome-error:")

LAUNCHES = {
    "urlencoded form": (SUBMIT_FORM, "application/x-www-form-urlencoded"),
    "multipart form": (SUBMIT_FORM, "multipart/form-data"),
    "plain text form": (SUBMIT_FORM, "text/plain"),
    "image": (LOAD_IMAGE,),
    "text that mentions JSON": (FETCH, "text/plain; not=application/json", "no-cors"),
}
"""The name of each attack that Dagster's own server falls for, its script, and the script's arguments."""


@dataclass(frozen=True)
class Servers:
    """Our web server, Dagster's own, a foreign page, and the instance behind both servers."""

    ours: str
    dagsters: str
    foreign_page: str
    instance: dg.DagsterInstance

    def launched_by(self, attack: str) -> int:
        return self.instance.get_runs_count(dg.RunsFilter(tags={ATTACK_TAG: attack}))


class _ForeignPage(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><body></body>")

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
@provides(Resource.DAEMON)
def servers(postgres_server: URL, tmp_path_factory: pytest.TempPathFactory, field_key: str) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("foreign-pages")
    log = folder / "processes.log"
    with ExitStack() as stack:
        home = stack.enter_context(temporary_dagster_home(postgres_server, folder / "home"))
        database = stack.enter_context(temporary_database(postgres_server, template=TEMPLATE))
        variables = server_variables(home, database, field_key)
        workspace = stack.enter_context(run_worker(home, variables, log))
        # It launches without the keys that the worker has.
        ours = stack.enter_context(run_web_server(workspace, home.variables, log))
        port = find_free_port()
        command = (sys.executable, "-m", "dagster_webserver", "--workspace", str(workspace), "--port", str(port))
        stack.enter_context(run_process(*command, environment=environment_for_child(variables), log=log))
        wait_until(lambda: is_listening(port), seconds=240, what="Dagster's own web server")
        page = http.server.ThreadingHTTPServer((LOOPBACK, 0), _ForeignPage)
        threading.Thread(target=page.serve_forever, daemon=True).start()
        stack.callback(page.server_close)
        stack.callback(page.shutdown)
        instance = stack.enter_context(open_instance(home))
        foreign = f"http://{FOREIGN_HOST}:{page.server_address[1]}/"
        yield Servers(ours, f"http://{LOOPBACK}:{port}", foreign, instance)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new window."""
    context = browser.new_context()
    context.set_default_timeout(TIMEOUT_MILLISECONDS)
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("attack", LAUNCHES)
def test_foreign_page_launches_nothing(page: Page, servers: Servers, attack: str) -> None:
    script, *arguments = LAUNCHES[attack]
    page.goto(servers.foreign_page)
    query = LAUNCH.format(attack=attack)
    page.evaluate(script, [servers.dagsters, query, *arguments])
    assert servers.launched_by(attack) == 1, "Dagster's own server should fall for this attack"
    page.evaluate(script, [servers.ours, query, *arguments])
    assert servers.launched_by(attack) == 1


def test_foreign_page_may_not_send_json(page: Page, servers: Servers) -> None:
    """Browsers ask first, and neither server agrees."""
    page.goto(servers.foreign_page)
    for server in (servers.dagsters, servers.ours):
        page.evaluate(FETCH, [server, LAUNCH.format(attack="json"), "application/json", "cors"])
    assert servers.launched_by("json") == 0


def test_foreign_page_opens_no_websocket(page: Page, servers: Servers) -> None:
    page.goto(servers.foreign_page)
    assert json.loads(page.evaluate(OPEN_SOCKET, [servers.dagsters])) == {"type": "connection_ack"}
    assert page.evaluate(OPEN_SOCKET, [servers.ours]) is None


def test_foreign_page_shows_no_page_of_the_ui(page: Page, servers: Servers) -> None:
    page.goto(servers.foreign_page)
    shown = []
    for server in (servers.dagsters, servers.ours):
        page.evaluate(EMBED, [server])
        frame = page.locator("iframe").element_handle().content_frame()
        assert frame is not None
        frame.wait_for_url(SHOWN_OR_BLOCKED, timeout=TIMEOUT_MILLISECONDS)
        shown.append("dagster_version" in frame.content())
    assert shown == [True, False]


def test_rebound_name_launches_nothing(page: Page, servers: Servers) -> None:
    """The page's own name leads to the server, so to the browser both are of one origin."""
    for server, launched in ((servers.dagsters, 1), (servers.ours, 1)):
        rebound = server.replace(LOOPBACK, REBOUND_HOST)
        page.goto(f"{rebound}/server_info")
        page.evaluate(FETCH, [rebound, LAUNCH.format(attack="rebinding"), "application/json", "same-origin"])
        assert servers.launched_by("rebinding") == launched


def test_own_page_launches_runs_and_opens_websockets(page: Page, servers: Servers) -> None:
    page.goto(f"{servers.ours}/server_info")
    page.evaluate(FETCH, [servers.ours, LAUNCH.format(attack="none"), "application/json", "same-origin"])
    assert servers.launched_by("none") == 1
    assert json.loads(page.evaluate(OPEN_SOCKET, [servers.ours])) == {"type": "connection_ack"}
