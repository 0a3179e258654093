"""Parses an HTML page for tests."""

import html.parser

VOID = {"meta", "img", "wbr", "br", "link"}


class Page(html.parser.HTMLParser):
    """Parses a page; fails at a tag that is not closed in order.

    Attributes:
      elements: `(tag, attributes)` of each element, in order.
      text: The visible text with single spaces.
    """

    def __init__(self, source):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        # Remove word breaks, so that tests find long names.
        self.feed(source.replace("<wbr>", ""))
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def read(path):
    """Returns the page of a file."""
    return Page(path.read_text(encoding="utf-8"))


def assert_self_contained(page):
    for name, attributes in page.elements:
        for key in ("src", "href", "xlink:href"):
            if key in attributes:
                allowed = ("data:image/jpeg;base64,", "#")
                assert attributes[key].startswith(allowed), name
        assert not any(key.startswith("on") for key in attributes), name
    assert not page.all("script")
    assert not page.all("link")


def assert_accessible(page):
    assert all(image["alt"] for image in page.all("img"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {link["href"][1:] for link in page.all("a")}
    assert targets <= set(ids)
    assert len(page.all("h1")) == 1
    assert page.all("html")[0]["lang"] == "en"
