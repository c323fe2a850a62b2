"""lives_expose: of tristero-tunnel expose: some begin and end with a life, and one by each backend
lasts, and is visited and cut by many lives."""

import contextlib
import time

import harness
import lives_ssh
import talks
import tunnels_of_many
from exposed import Exposed
from harness import connect
from life import IN_TIME_S, LINGER_S, Kind, TooLate, Wrong, all_results
from tunnels_of_many import visit


def expose(life):
    exposed = Exposed(life.daemon, life.chance.choice(life.soak.backends), life.chance.randrange(1, 4))
    life.at_end(exposed.clean_up)
    return exposed


def visits(life, exposed, slowly=False, most=3):
    """Some clients at once, which the caller waits for."""
    by_ssh = exposed.backend == "ssh"
    kinds = ((lives_ssh.SLOW_TALKS if slowly else lives_ssh.TALKS) if by_ssh else
             (tunnels_of_many.SLOW_TALKS if slowly else tunnels_of_many.TALKS))
    return [life.beside(_visit, life.branch(), exposed, life.chance.choice(kinds))
            for _ in range(life.chance.randrange(1, most + 1))]


def _visit(life, exposed, talk):
    visit(life, exposed.reception, exposed.address, talk, exposed.cuts)


def served(life):
    """Clients, and then it is ended."""
    exposed = expose(life)
    all_results(visits(life, exposed))
    exposed.stop()


def served_slowly(life):
    """Clients that the others must not wait for."""
    exposed = expose(life)
    all_results(visits(life, exposed, slowly=True, most=2) + visits(life, exposed, most=1))
    exposed.stop()


def terminated(life):
    """At any moment, from its start on."""
    exposed = expose(life)
    talking = []
    if life.chance.random() < 0.7:
        exposed.ready()
        talking = visits(life, exposed)
    life.pause(0.4)
    exposed.stop()
    all_results(talking)


def proxy_lost(life):
    """Its connections are cut, and it comes back, but by tcp at the same address."""
    exposed = expose(life).ready()
    talking = visits(life, exposed)
    life.pause(0.3)
    since = time.monotonic()
    exposed.lose_proxy()
    if exposed.has_moved():
        if time.monotonic() - since < IN_TIME_S:
            raise Wrong("expose came back in time, at another address")
        raise TooLate("expose came back")
    all_results(talking + visits(life, exposed))
    exposed.stop()


def service_away(life):
    """Who comes then is reset, and who comes afterwards is served."""
    exposed = expose(life).ready()
    talking = visits(life, exposed)
    life.pause(0.2)
    with exposed.service_away():
        for _ in range(life.chance.randrange(1, 4)):
            with contextlib.suppress(ConnectionError), connect(exposed.address()) as client:
                client.sendall(b"?")
                harness.receive_until_reset(client)
    all_results(talking + visits(life, exposed))
    exposed.stop()


def frozen(life):
    """It stands still for a while."""
    exposed = expose(life).ready()
    talking = visits(life, exposed)
    for _ in range(life.chance.randrange(1, 4)):
        life.pause(0.2)
        exposed.stand_still(life.chance.random() * LINGER_S / 4)
    all_results(talking)
    exposed.stop()


def visit_lasting(life):
    """One that has served many others."""
    all_results(visits(life, life.chance.choice(life.soak.lasting)))


def cut_lasting(life):
    """The same, and its connections are lost meanwhile."""
    exposed = life.chance.choice(life.soak.lasting)
    talking = visits(life, exposed)
    life.pause(0.2)
    if exposed.is_steady():
        exposed.lose_proxy()
    all_results(talking)


KINDS = [Kind(served, 4, 1), Kind(served_slowly, 2, talks.LATE_S), Kind(terminated, 4), Kind(proxy_lost, 4, 3),
         Kind(service_away, 2, 1), Kind(frozen, 2, 2), Kind(visit_lasting, 12), Kind(cut_lasting, 3, 2)]
