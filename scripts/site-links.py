"""For mkdocs.yml: makes pages work in mkdocs as they do in the repository.

Turns a link out of docs/ into a link to the repository's page of that file. Puts an empty line between a paragraph and a list,
since Python-Markdown takes the list for text of the paragraph without it.
"""

import re

REPOSITORY = "https://github.com/kanban-vfs/kanban-vfs/blob/main/"


def on_page_markdown(markdown: str, **_: object) -> str:
    markdown = re.sub(r"\]\(\.\./", f"]({REPOSITORY}", markdown)
    return re.sub(r"^(?!\s*(?:[-*]|\d+\.) |\s*\|)(\S.*)\n(?=(?:[-*]|\d+\.) )", r"\1\n\n", markdown, flags=re.M)


def on_config(config, **_: object):
    """GitHub's names of headings, which keep letters of other alphabets and signs between words."""
    def slug(text: str, separator: str) -> str:
        kept = "".join(c for c in text.strip().lower() if c.isalnum() or c in " -_")
        return kept.replace(" ", separator)

    config.mdx_configs["toc"] = {"slugify": slug}
    return config
