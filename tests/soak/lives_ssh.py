"""lives_ssh: of tunnels by ssh, whose servers are OpenSSH's ssh and paramiko."""

import contextlib
import threading
import time

import harness
import talks
from harness import connect, is_refused, receive_until_reset, wait_until
from life import ATTACH_TIMEOUT_S, IN_TIME_S, LINGER_S, Kind, TooLate, Wrong, all_results
from ssh_harness import PARAMIKO, Paramiko, Service, Ssh, Token, some_login
from tunnels_of_many import Cuts, Reception, visit_by_peer, visits

# A reset may look like an end to the server, and ssh makes ends of its service's resets.
TALKS = (talks.whole, talks.question_and_answer, talks.small_talk, talks.broken_off_somehow)
SLOW_TALKS = (talks.slow_client, talks.client_left_hanging)
REKEYS_OFTEN = ("RekeyLimit=256K",)


class Forwards:
    """Some of one login, each to a service in this process."""

    def __init__(self, life, count, login=None):
        self.life, self.login = life, login or some_login()
        self.receptions = [Reception(may_be_cut_short=True) for _ in range(count)]
        self.services = [Service(reception.arrive) for reception in self.receptions]
        for service in self.services:
            life.at_end(service.close)
        self.cuts = Cuts()

    def carry(self, kind=Ssh, **how):
        """By a new process, which has its addresses."""
        self.carrier = kind(self.life.daemon, *(service.port for service in self.services),
                            login=self.login, **how)
        self.life.at_end(self.carrier.clean_up)
        self.addresses = self.carrier.addresses
        return self

    def visits(self, number=None, kinds=TALKS, most=3):
        """Of one of the forwards, or of all."""
        return [each for index, (reception, address) in enumerate(zip(self.receptions, self.addresses))
                if number in (None, index)
                for each in visits(self.life, reception, address, self.cuts, kinds, most)]


def some_forwards(life):
    options = life.chance.choice(((), REKEYS_OFTEN, ("Compression=yes",)))
    return Forwards(life, life.chance.randrange(1, 4)).carry(options=options)


def talking(life):
    """Clients of several forwards of one connection, with new keys now and then."""
    all_results(some_forwards(life).visits())


def talking_slowly(life):
    """Clients that the others must not wait for."""
    forwards = some_forwards(life)
    all_results(forwards.visits(0, SLOW_TALKS, 2) + forwards.visits(most=2))


def frozen(life):
    """ssh stands still for a while."""
    forwards = some_forwards(life)
    talking = forwards.visits()
    for _ in range(life.chance.randrange(1, 4)):
        life.pause(0.2)
        forwards.carrier.freeze()
        life.pause(LINGER_S / 4)
        forwards.carrier.thaw()
    all_results(talking)


def killed(life):
    """ssh is killed, and who comes by the same name or token finds the same addresses, and
    the clients that have come meanwhile."""
    if life.chance.random() < 0.5:
        forwards = Forwards(life, 1, Token(life.daemon).login).carry()
    else:
        forwards = some_forwards(life)
    for _ in range(life.chance.randrange(1, 3)):
        before = forwards.addresses
        with connect(before[0]) as witness:
            talking = forwards.visits()
            life.pause(0.3)
            since = time.monotonic()
            with forwards.cuts.cutting():
                forwards.carrier.kill()
                receive_until_reset(witness)
        talking += forwards.visits(most=1)
        forwards.carry()
        if time.monotonic() - since > IN_TIME_S:
            raise TooLate("ssh came back")
        if forwards.addresses != before:
            raise Wrong(f"the addresses {before} became {forwards.addresses}")
        all_results(talking + forwards.visits(most=2))


def cancelled(life):
    """One of two forwards is given back, after an exchange of keys: its clients stay to their
    end, and nobody else comes; the other one's notice nothing."""
    forwards = Forwards(life, 2).carry(Paramiko)
    if life.chance.random() < 0.5:      # paramiko can't while bytes come
        forwards.carrier.tell("rekey")
        forwards.carrier.expect("rekeyed")
    there = threading.Semaphore(0)

    def talk(life, server, client):
        there.release()
        life.chance.choice(TALKS)(life, server, client)

    talking = forwards.visits(kinds=(talk,))
    for _ in talking:
        if not there.acquire(timeout=harness.WAIT_S):
            raise Wrong("a client was not served")
    forwards.carrier.tell("cancel", forwards.addresses[0][1])
    forwards.carrier.expect("cancelled")
    all_results(talking)
    wait_until(lambda: is_refused(forwards.addresses[0]), "the port of a cancelled forward closes")
    all_results(forwards.visits(1))


def peers(life):
    """Clients that are frozen, or killed, beside others."""
    forwards = some_forwards(life)
    others = forwards.visits(most=1)
    visit_by_peer(life, forwards.receptions[0], forwards.addresses[0])
    all_results(others)


def no_service(life):
    """It is away, and who comes is reset; the forward beside it is served."""
    forwards = Forwards(life, 2).carry()
    forwards.services[0].close()
    for _ in range(life.chance.randrange(1, 4)):
        with contextlib.suppress(ConnectionError), connect(forwards.addresses[0]) as client:
            receive_until_reset(client)
    all_results(forwards.visits(1))


def unused_token(life):
    """Nobody comes for it."""
    address = Token(life.daemon).address
    wait_until(lambda: is_refused(address), "an unused tunnel closes")


def strangers(life):
    """They come to the port of ssh with garbage, or go in the middle of a login."""
    for _ in range(life.chance.randrange(1, 6)):
        with contextlib.suppress(ConnectionError), connect(life.daemon.ssh_address) as stranger:
            if life.chance.random() < 0.7:
                stranger.sendall(b"SSH-2.0-soak\r\n")
            stranger.sendall(life.chance.randbytes(life.chance.randrange(1, 2000)))
            life.pause(0.05)
            if life.chance.random() < 0.5:
                harness.reset(stranger)
    all_results(Forwards(life, 1).carry().visits())


KINDS = [Kind(talking, 6, 1), Kind(talking_slowly, 2, talks.LATE_S), Kind(frozen, 2, 2), Kind(killed, 4, 2),
         Kind(peers, 1, 2), Kind(no_service, 1, 1), Kind(unused_token, 1, ATTACH_TIMEOUT_S),
         Kind(strangers, 1, 1)]
if PARAMIKO:
    KINDS.append(Kind(cancelled, 2, 2))
