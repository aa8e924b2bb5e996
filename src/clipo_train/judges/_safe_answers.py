"""Which answers a scorer of reasoning-gym may see: several scorers evaluate what they are given as Python.

A task is in one of the tables below because its scorer was read: those of `_AS_TEXT` only compare, split, convert and
decode text; those of `_CHECKS` hand the answer to `eval` or to SymPy, which evaluates too, or work as long as a
number in it says. The scorer of a task in neither table, such as one of a newer reasoning-gym, is never called: it
accepts its own answer only.
"""

import ast
import math
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

_COMPARING = """
ab acre advanced_geometry aiw arc_1d arc_agi base_conversion basic_arithmetic bf binary_alternation
bitwise_arithmetic boxnet caesar_cipher calendar_arithmetic chain_sum circuit_logic codeio color_cube_rotation
complex_arithmetic count_bits count_primes course_schedule cryptarithm decimal_arithmetic decimal_chain_sum dice
emoji_mystery family_relationships figlet_font fraction_simplification futoshiki game_of_life gcd graph_color
group_anagrams gsm_symbolic isomorphic_strings jugs kakurasu knight_swap knights_knaves largest_island lcm
leg_counting letter_counting letter_jumble list_functions mahjong_puzzle manipulate_matrix maze mini_sudoku
modulo_grid needle_haystack number_filtering number_format number_sequence number_sorting palindrome_generation
palindrome_partitioning path_star polynomial_equations pool_matrix power_function prime_factorization products
propositional_logic quantum_lock ransom_note rearc rectangle_count rotate_matrix rotten_oranges self_reference
sentence_reordering shortest_path simple_equations simple_geometry sokoban spell_backward string_manipulation
string_splitting string_synthesis sudoku survo syllogism time_intervals tower_of_hanoi tsumego word_ladder
word_sequence_reversal word_sorting zebra_puzzles
"""
_AS_TEXT = frozenset(_COMPARING.split())
"""All but game_of_life_halting, whose scorer accepts any text, and composite."""
_LONGEST = 10_000
_LONGEST_EXPRESSION = 1_000
_MOST_NODES = 500
_DEEPEST = 40
_CALCULUS = "sin cos tan cot sec csc exp log ln sqrt asin acos atan sinh cosh tanh asinh acosh atanh Abs"
_FUNCTIONS = frozenset(_CALCULUS.split())
_BITWISE = (ast.Add, ast.Sub, ast.Mult, ast.LShift, ast.RShift, ast.BitAnd, ast.BitOr, ast.BitXor)
_NOT_A_NUMBER = re.compile(r"(?i)(?<![a-z])(?:nan|inf|infinity)[ij]?(?![a-z])")

_TOO_LONG = re.compile(r"(?i)\d{21}|\de[+-]?\d{3}")

Entry = Mapping[str, Any]


def may_be_scored(task: str, answer: str, entry: Entry) -> bool:
    """Returns whether a task's scorer may be called with an answer and an entry, neither of which is ours.

    NaN and infinities are refused too: comparisons with them are false both ways, which some scorers take for equality.
    """
    if len(answer) > _LONGEST or (_NOT_A_NUMBER.search(answer) and not _NOT_A_NUMBER.search(str(entry["answer"]))):
        return False
    if task in _ENTRIES and not _ENTRIES[task](entry):
        return False
    return _CHECKS[task](answer, entry) if task in _CHECKS else task in _AS_TEXT


def is_literal(text: str) -> bool:
    """Whether text is a list, a tuple, a string or a number of Python's, and nothing else."""
    return _fits(text, (ast.List, ast.Tuple, ast.Constant, ast.UnaryOp, ast.USub, ast.Load), _LONGEST)


def is_arithmetic(text: str) -> bool:
    """Whether text is sums, products and quotients of decimal numbers of up to 20 digits."""
    if not re.fullmatch(r"[\d\s+\-*/().]*", text, flags=re.ASCII) or _TOO_LONG.search(text):
        return False
    return _fits(text, (*_ARITHMETIC, ast.Add, ast.Sub, ast.Mult, ast.Div))


def is_algebra(text: str) -> bool:
    """Whether text is arithmetic with powers, names of one letter, pi and the functions of calculus.

    An exponent is at most 50, or 10 on a sum or product; there are no powers of powers.
    """
    if not re.fullmatch(r"[\w\s+\-*/().]*", text, flags=re.ASCII) or _TOO_LONG.search(text):
        return False
    return _fits(
        text, (*_ARITHMETIC, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.Name, ast.Call), names=_is_known
    )


_ARITHMETIC = (ast.BinOp, ast.UnaryOp, ast.USub, ast.UAdd, ast.Constant, ast.Load)


def _fits(
    text: str,
    nodes: tuple[type[ast.AST], ...],
    longest: int = _LONGEST_EXPRESSION,
    names: Callable[[ast.AST], bool] = lambda node: True,
) -> bool:
    """Whether text is one expression of these nodes; it is parsed, not compiled."""
    if len(text) > longest or _depth(text) > _DEEPEST:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text.strip(), mode="eval").body
        found = list(ast.walk(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    if len(found) > (_MOST_NODES if longest == _LONGEST_EXPRESSION else longest):
        return False
    return all(isinstance(node, nodes) and _is_plain(node) and names(node) for node in found)


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _is_plain(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str | int | float) and not isinstance(node.value, bool)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS and not node.keywords
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return _is_bounded_power(node)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.LShift):
        return isinstance(node.right, ast.Constant) and isinstance(node.right.value, int) and node.right.value <= 64
    return True


def _is_known(node: ast.AST) -> bool:
    return not isinstance(node, ast.Name) or len(node.id) == 1 or node.id == "pi" or node.id in _FUNCTIONS


def _is_bounded_power(node: ast.BinOp) -> bool:
    base = [] if isinstance(node.left, ast.Call) else list(ast.walk(node.left))
    exponent = list(ast.walk(node.right))
    if any(_is_power(inner) for inner in base + exponent):
        return False
    constants = [inner.value for inner in exponent if isinstance(inner, ast.Constant)]
    largest = 50 if isinstance(node.left, ast.Name | ast.Constant | ast.Call) else 10
    return math.prod(max(value, 1) for value in constants if isinstance(value, int | float)) <= largest


def _is_power(node: ast.AST) -> bool:
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow)


def _is_bitwise(text: Any) -> bool:
    if not isinstance(text, str) or not re.fullmatch(r"[\dA-Fa-fxX\s+\-*<>&|^~()]*", text, flags=re.ASCII):
        return False
    return _fits(text, (*_ARITHMETIC, ast.Invert, *_BITWISE))


def _literal_or_solution(answer: str, entry: Entry) -> bool:
    return answer in list(entry["metadata"]["valid_answers"]) or is_literal(answer)


def _uses_its_numbers(answer: str, entry: Entry) -> bool:
    """Puzzle24's scorer counts the numbers, and does not compare them with the puzzle's."""
    return is_arithmetic(answer) and sorted(map(int, re.findall(r"\d+", answer))) == sorted(
        entry["metadata"]["numbers"]
    )


def _short_numbers(answer: str, entry: Entry) -> bool:
    """For scorers that do as much work as a number says."""
    return not re.search(r"\d{3}", answer)


def _is_fraction(text: str) -> bool:
    return bool(re.fullmatch(r"[\d\s.,/+-]*(?:e[+-]?\d{1,3})?", text, flags=re.ASCII))


_CHECKS: Mapping[str, Callable[[str, Entry], bool]] = {
    "binary_matrix": lambda answer, entry: is_literal(answer),
    "spiral_matrix": lambda answer, entry: is_literal(answer),
    "string_insertion": lambda answer, entry: is_literal(answer),
    "n_queens": _literal_or_solution,
    "countdown": lambda answer, entry: is_arithmetic(answer),
    "puzzle24": _uses_its_numbers,
    "simple_integration": lambda answer, entry: is_algebra(answer),
    "intermediate_integration": lambda answer, entry: is_algebra(answer),
    "polynomial_multiplication": lambda answer, entry: is_algebra(answer),
    "coin_flip": lambda answer, entry: _is_fraction(answer),
    "rubiks_cube": _short_numbers,
    "rush_hour": _short_numbers,
}


def _is_integrand(entry: Entry) -> bool:
    data = entry["metadata"]
    return is_algebra(data["integrand"]) and isinstance(data["variable"], str) and len(data["variable"]) == 1


_ENTRIES: Mapping[str, Callable[[Entry], bool]] = {
    "bitwise_arithmetic": lambda entry: _is_bitwise(entry["metadata"]["problem"]),
    "coin_flip": lambda entry: _is_fraction(entry["answer"]),
    "number_sorting": lambda entry: is_literal(entry["answer"]),
    "simple_integration": _is_integrand,
    "intermediate_integration": _is_integrand,
    "polynomial_multiplication": lambda entry: is_algebra(entry["answer"]),
}
"""What scorers evaluate of the entry, which may come from a data file."""
