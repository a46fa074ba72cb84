"""What a stack is, and whether its concepts will bleed: figures, words and a picture."""

from .figures import Inspection, inspect
from .picture import report_picture
from .text import table, text
from .verdict import verdict

__all__ = ["Inspection", "inspect", "report_picture", "table", "text", "verdict"]
