#!/usr/bin/python3 -B
"""tristero-tunnel expose, to a web browser as people use it."""

import json
import os
import struct
import unittest
import zlib

import harness
from browser import CHROMIUM, Browser
from expose_harness import ExposeCase, address_of_url
from harness import wait_until
from ssh_harness import SshDaemon

IMAGES = 50
PAGE = """<!DOCTYPE html><meta charset="utf-8"><title>many</title><body><script>
for (let i = 0; i < %d; i++)
    document.body.append(Object.assign(new Image(), { src: `images/${i}.png`, alt: i }));
window.onload = () => {
    const images = [...document.images].map(i => [i.naturalWidth, i.naturalHeight]);
    document.body.append(Object.assign(document.createElement("output"),
                                       { textContent: JSON.stringify(images) }));
};
</script>""" % IMAGES


def size_of(number):
    return 400 - 7 * number, 30 + 5 * number


def png(width, height):
    """Of noise, so that its bytes are as many as they are."""
    def chunk(kind, content):
        return (struct.pack(">I", len(content)) + kind + content
                + struct.pack(">I", zlib.crc32(kind + content)))

    rows = b"".join(b"\0" + os.urandom(3 * width) for _ in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def png_content(picture):
    """Its compressed rows."""
    content, at = b"", 8
    while at < len(picture):
        length, kind = struct.unpack_from(">I4s", picture, at)
        content += picture[at + 8:at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
    return content


@unittest.skipUnless(CHROMIUM, "chromium is not installed")
class Browsing(ExposeCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.browser = Browser()

    @classmethod
    def tearDownClass(cls):
        cls.browser.clean_up()
        super().tearDownClass()

    def folder(self):
        """With a page of many images in it, in a folder of its own."""
        folder = os.path.join(self.temporary_folder(), "shown")
        os.makedirs(os.path.join(folder, "gallery", "images"))
        for number in range(IMAGES):
            with open(os.path.join(folder, "gallery", "images", f"{number}.png"), "wb") as file:
                file.write(png(*size_of(number)))
        for name, content in (("gallery/index.html", PAGE), ("with blank & <tag> 100%.txt", "words"),
                              ("\u00fcml\u00e4ut.txt", "Stra\u00dfe")):
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(content)
        return folder

    def test_a_page_of_many_images_is_shown_whole(self):
        url = self.expose("--dir", self.folder()).line()
        page = self.browser.open(url + "gallery/")
        shown = page.wait_for('document.querySelector("output")?.textContent')
        self.assertEqual(json.loads(shown), [list(size_of(number)) for number in range(IMAGES)])
        # and again, as a reader does who presses the key for it
        self.assertEqual(page.run(f"""
            const sizes = await Promise.all([...Array({IMAGES}).keys()].map(async number =>
                (await (await fetch(`images/${{number}}.png`, {{cache: "reload"}})).blob()).size));
            return sizes.every(size => size > 1000)"""), True)

    def test_a_folder_s_list_can_be_walked_by_its_links(self):
        url = self.expose("--dir", self.folder()).line()
        page = self.browser.open(url)
        self.assertEqual(page.run('return [...document.links].map(link => link.textContent)'),
                         ["gallery/", "with blank & <tag> 100%.txt", "\u00fcml\u00e4ut.txt"])
        for number, wanted in ((1, "words"), (2, "Stra\u00dfe")):
            page.run(f"setTimeout(() => document.links[{number}].click(), 0)")
            page.wait_for('location.pathname.endsWith(".txt") && document.readyState === "complete"')
            self.assertEqual(page.run("return document.body.innerText"), wanted)
            page.run("setTimeout(() => history.back(), 0)")
            page.wait_for('location.pathname === "/" && document.readyState === "complete"')
        page.run("setTimeout(() => document.links[0].click(), 0)")
        page.wait_for('document.title === "many"')

    def test_a_folder_s_list_can_be_read_on_a_phone_and_in_the_dark(self):
        folder = self.folder()
        for name in (100 * "long " + ".txt", 200 * "x"):
            with open(os.path.join(folder, name[:200]), "wb") as file:
                file.truncate(123_456_789)
        page = self.browser.open(self.expose("--dir", folder).line())
        page.be_shown_on(390, 700)
        self.assertEqual(page.run("return [innerWidth, document.documentElement.scrollWidth]"), [390, 390])
        self.assertEqual(page.run("return document.links[0].getClientRects().length"), 1)
        page.be_shown_in_the_dark()
        row = zlib.decompressobj().decompress(png_content(page.screenshot()), 5)
        self.assertLess(max(row[1:4]), 64)      # the first pixel, whatever filter the first row has

    def test_a_page_that_polls_sees_the_proxy_come_back(self):
        """At another address, which the page is told; what it has asked meanwhile has failed, not hung."""
        listen_on = f"127.0.0.1:{self.closed_port()}"
        with SshDaemon(listen_on=listen_on) as first:
            program = self.start_program([harness.TUNNEL, "--proxy", first.url, "expose",
                                          str(self.web())])
            url = program.line()
            page = self.browser.open(url)
            page.run("""
                window.url = ""; window.answers = 0; window.failures = 0;
                window.polling = setInterval(async () => {
                    try {
                        await (await fetch(url + "/poll", {mode: "no-cors", cache: "no-store"})).text();
                        answers++;
                    } catch { failures++; }
                }, 20)""")
            page.wait_for("answers > 10")
            self.assertEqual(page.run("return failures"), 0)
            first.signal(15)
            self.assertEqual(first.wait(), 0, first.errors())
            page.wait_for("failures > 10")
            wait_until(lambda: "next try" in program.errors(), "it tries again")
            with SshDaemon(listen_on=listen_on, ports=first.ports):
                again = program.line()
                address_of_url(again)
                wait_until(lambda: f"attached again, at a new address: {again}\n" in program.errors(),
                           "the new address is told")
                page.run(f"answers = 0; window.url = '{again.rstrip('/')}'")
                page.wait_for("answers > 10")
                page.run("clearInterval(polling)")
                program.signal(15)
                self.assertEqual(program.wait(), 0, program.errors())


if __name__ == "__main__":
    harness.main()
