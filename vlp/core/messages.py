"""What is said to users."""


def one_line(error: object) -> str:
    """The message of an error, or a text, without line breaks."""
    return " ".join(str(error).split())
