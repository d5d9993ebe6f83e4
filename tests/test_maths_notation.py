"""Ways to write an answer, each rule with answers that it accepts and answers that it must still refuse."""

import pytest

from harness.grading.maths import pool
from harness.grading.maths.task import Gold, grade

both, interval, km = {"several": True}, {"interval": True}, {"unit": "km/h"}

# gold, rules, answers that are right, answers that are wrong
CASES = [
    (
        "10_{2}",
        {},
        ["10_2", "(10)_2", "2_{10}", "10 \\text{ (base 2)}", "10", "10_{\\text{two}}"],
        ["2_{2}", "2", "9_2", "10_3", "10_{10}", "2_2"],
    ),
    ("11_8", {}, ["11_{8}", "9_{10}", "11", "11_{\\text{eight}}"], ["9_8", "9", "8_8", "11_{9}"]),
    ("4210_{5}", {}, ["4210_5", "4210", "555_{10}", "4210_{(5)}"], ["555_{5}", "555", "4210_{6}", "5210_5"]),
    (
        "1A_{16}",
        {},
        ["1a_{16}", "26_{10}", "1A", "\\text{1A}_{16}", "\\mathrm{1A}_{16}"],
        ["1B_{16}", "26", "1G_{16}", "1A_{10}", "1A_{8}"],
    ),
    ("FF_{16}", {}, ["255_{10}", "ff_{16}"], ["FG_{16}", "255"]),
    ("26", {}, ["1A_{16}", "11010_2"], ["1A_{10}", "26_{6}", "2_{6}"]),
    (
        "1,2,3",
        both,
        ["(1,2,3)", "[1,2,3]", "(x,y,z)=(1,2,3)", "\\{1,2,3\\}", "3,2,1", "\\langle 1,2,3\\rangle", "1,2,3,3"],
        ["(3,2,1)", "(1,2)", "[1,2]", "(1,2,4)", "(1,2,3,4)", "1,2"],
    ),
    ("1,2,3", {}, ["(1,2,3)", "[1,2,3]"], ["(3,2,1)"]),
    (
        "(1,2),(3,4)",
        both,
        ["(x,y)\\in\\{(1,2),(3,4)\\}", "\\{(3,4),(1,2)\\}", "(x,y)=(1,2),(3,4)", "(x, y) = (1,2) \\text{ or } (3,4)"],
        ["(x,y)\\in\\{(2,1),(3,4)\\}", "(1,2)", "(1,2,3,4)"],
    ),
    (
        "12",
        {},
        [
            "12^{\\mathrm{th}} \\text{ grade}",
            "12^{\\text{th}}",
            "12th",
            "\\text{12th}",
            "12^{th}",
            "\\text{12th grade}",
        ],
        ["12^{\\mathrm{st}}", "13th", "12st", "\\text{12nd}", "12^{\\text{rd}}"],
    ),
    ("5", {}, ["5^{\\text{th}}"], ["5^{\\text{st}}", "5^5", "5^t"]),
    ("3", {}, ["3^{\\text{rd}}", "3rd"], ["3th", "3^{\\text{th}}"]),
    (
        "\\frac{600}{7}",
        km,
        [
            "\\frac{600}{7} \\mathrm{~km} / \\mathrm{h}",
            "\\frac{600}{7}\\text{ km/h}",
            "\\frac{600}{7}\\frac{\\text{km}}{\\text{h}}",
            "\\frac{600}{7}\\text{ km}\\cdot\\text{h}^{-1}",
            "\\frac{600}{7} \\text{ kilometers per hour}",
            "\\frac{600000}{7}\\text{ m/h}",
        ],
        [
            "\\frac{600}{7}\\text{ m/s}",
            "\\frac{600}{7}\\text{ km}",
            "\\frac{600}{7}\\text{ miles per hour}",
            "\\frac{600}{7}\\text{ h}/\\text{km}",
        ],
    ),
    ("60", km, ["60\\frac{\\text{km}}{\\text{h}}", "1\\text{ km}/\\text{min}"], ["60\\frac{\\text{m}}{\\text{h}}"]),
    (
        "10",
        {},
        ["10\\text{m}\\cdot\\text{s}^{-1}", "10 \\text{ m/s}^2", "10\\ \\mathrm{m/s^2}"],
        ["11\\text{m}\\cdot\\text{s}^{-1}"],
    ),
    (
        "600",
        {},
        ["x \\approx 600", "\\approx 600", "≈600", "600 \\approx 601"],
        ["x \\approx 601", "601 \\approx 600", "\\approx 60"],
    ),
    ("g(x)=x^2-2x+2", {}, ["g(x) = x² - 2x + 2", "x²−2x+2"], ["x³-2x+2", "g(x)=x²-2x-2"]),
    ("x^3", {}, ["x³", "x**3"], ["x²", "3x"]),
    ("\\frac12", {}, ["½", "1⁄2", "2½-2", "0.5"], ["⅓", "¼"]),
    ("\\frac52", {}, ["2½", "2 ½"], ["1½"]),
    ("\\sqrt[3]{2}", {}, ["∛2"], ["√2", "3√2"]),
    ("2x", {}, ["2·x", "2⋅x", "2×x"], ["2+x"]),
    ("1 \\pm \\sqrt{19}", {}, ["1±√19", "1\\pm\\sqrt{19}"], ["1±√9", "1+√19"]),
    ("x_1+1", {}, ["x₁+1"], ["x₂+1"]),
    ("1,2", both, ["1,1,2", "\\{1,2,2\\}", "2,1,1"], ["1,1", "1,1,3", "1,2,2,3"]),
    ("-2,-2", both, ["-2,-2"], ["-2", "-2,2"]),
    (
        "4",
        {},
        ["x=4", "2+2=4", "4=x", "x=2+2=4", "a_1=4", "m+n=4", "P(X=2)=4", "|AB|=4", "f(2)=4"],
        ["2x=4", "x+1=4", "x^2=4", "4 \\text{ is not a solution}", "x=2+3=4", "4\\text{ or }5", "x=4=5"],
    ),
    (
        "10",
        {},
        ["10\\text{ apples}", "10 \\text{ units}"],
        [
            "10\\text{ million}",
            "10 million",
            "10\\text{ thousand dollars}",
            "10\\text{ or more}",
            "10\\text{ is wrong}",
            "10 \\text{ dozen}",
            "10 \\text{ not }",
        ],
    ),
    ("10000000", {}, ["10\\text{ million}", "10 million", "10^7"], ["10\\text{ billion}", "10"]),
    ("5", {}, ["5=x", "x=5", "= 5", "5."], ["5\\neq x", "5=6", "6=x"]),
    ("x \\neq 5", {}, ["x != 5", "x≠5", "x \\ne 5"], ["x=5", "x \\ne 6", "5"]),
    ("27", {}, ["(C) 27", "\\text{(C) }27", "\\textbf{(C)}\\ 27", "\\mathbf{(C)}~27"], ["(C) 28", "(C)", "C"]),
    (
        "\\frac13",
        {},
        ["0.\\overline{3}", "0.(3)", "0.\\dot{3}", ".\\overline{3}", "0.\\bar{3}"],
        ["0.\\overline{4}", "0.3", "0.\\overline{33}1"],
    ),
    ("\\frac{1}{6}", {}, ["0.1\\overline{6}"], ["0.\\overline{16}"]),
    ("\\frac17", {}, ["0.\\overline{142857}", "0.\\dot{1}4285\\dot{7}"], ["0.14286"]),
    ("6:15", {}, ["6{:}15", "6:15"], ["6.15", "615", "15:6"]),
    ("26000", {}, ["1000(26)", "(1000)(26)", "1000 (26)", "1000\\cdot 26", "1000*26"], ["1000(27)", "1000+26"]),
    ("1026", {}, [], ["1000(26)"]),
    (
        "8",
        {},
        ["\\gcd(8,16)", "\\gcd(16, 24)", "\\operatorname{gcd}(8,16)", "gcd(8,16)", "\\text{gcd}(8,16)"],
        ["\\gcd(4,16)", "\\text{lcm}(8,16)"],
    ),
    ("16", {}, ["\\text{lcm}(8,16)", "\\mathrm{lcm}(8,16)", "\\operatorname{lcm}(8,16)", "lcm(8,16)"], ["\\gcd(8,16)"]),
    (
        "x=1000, y=10",
        {},
        ["y=10, x=1000", "x=1000,y=10", "1000, 10", "x=1,000, y=10"],
        ["x=10, y=1000", "10, 1000", "y=1000, x=10", "x=1000", "z=1000,y=10"],
    ),
    (
        "(2,\\infty)",
        {},
        [
            "(2,+\\infty)",
            "x\\in(2,+\\infty)",
            "x>2",
            "x\\in (2, \\infty)",
            "2<x",
            "\\{x \\mid x>2\\}",
            "\\{x\\in\\mathbb{R}: x>2\\}",
        ],
        ["(2,-\\infty)", "[2,+\\infty)", "(3,+\\infty)", "x<2", "\\{x \\mid x\\ge2\\}"],
    ),
    (
        "(-\\infty,2)\\cup(3,\\infty)",
        {},
        [
            "(-\\infty,2)\\cup(3,+\\infty)",
            "x<2 \\lor x>3",
            "x<2 \\text{ or } x>3",
            "\\{x \\mid x<2 \\text{ or } x>3\\}",
            "(3,\\infty)\\cup(-\\infty,2)",
            "x<2\\text{ or }3<x",
            "\\mathbb{R}\\setminus[2,3]",
            "\\mathbb R\\backslash [2,3]",
            "x<2, x>3",
        ],
        [
            "x<2",
            "(-\\infty,2]\\cup(3,\\infty)",
            "2<x<3",
            "x<2 \\text{ and } x>3",
            "(-\\infty,2)\\cup(3,4)",
            "x\\le 2\\lor x>3",
        ],
    ),
    (
        "(2,12) \\cup (12,102)",
        {},
        [
            "(2,102)\\backslash\\{12\\}",
            "2<x<102, x\\neq 12",
            "(2,102)\\setminus\\{12\\}",
            "(2,102)-\\{12\\}",
            "x\\in(2,102), x\\ne 12",
            "2<x<102 \\text{ and } x\\neq 12",
        ],
        ["(2,102)", "(2,102)\\setminus\\{13\\}", "2<x<102", "[2,102]\\setminus\\{12\\}", "x \\neq 12"],
    ),
    (
        "\\mathbb{R}\\setminus\\{0\\}",
        {},
        ["\\mathbb R\\setminus\\{0\\}", "x\\ne 0", "(-\\infty,0)\\cup(0,\\infty)", "ℝ∖{0}", "\\mathbb{R}-\\{0\\}"],
        ["\\mathbb{R}", "\\{0\\}", "x>0", "\\mathbb{R}\\setminus\\{1\\}"],
    ),
    ("\\frac{1}{51!}", {}, ["1/51!"], ["1/50!", "0", "1/52!"]),
    ("10^{-45}", {}, ["\\frac{1}{10^{45}}"], ["10^{-44}", "0", "10^{-46}"]),
    ("548 \\pi", {}, ["548*pi", "548pi", "pi*548", "548 π", "548\\cdot\\pi"], ["548*pi^2", "549*pi", "548"]),
    ("9-2i", {}, ["9-2*i", "-2i+9"], ["9+2*i", "2-9*i"]),
    (
        "x^3+3x-6",
        {},
        ["x**3+3*x-6", "\\mathbf{x^3+3x-6}", "x^{3}+3x-6", "x³+3x−6", "\\mathrm{x^3+3x-6}", "\\boldsymbol{x^3+3x-6}"],
        ["x**3+3*x+6", "x**2+3*x-6"],
    ),
    ("e^9", {}, ["exp(9)", "\\exp(9)", "e**9", "e^{9}"], ["exp(8)", "9e", "exp(9)+1"]),
    (
        "\\sqrt7",
        {},
        ["\\sqrt(7)", "sqrt(7)", "√7", "√(7)", "7^{1/2}", "7**(1/2)", "7^(1/2)"],
        ["√(8)", "\\sqrt(8)", "7", "sqrt(6)"],
    ),
    ("7", {}, ["√49", "\\sqrt{49}", "sqrt(49)"], ["√17", "√7", "\\sqrt17", "\\sqrt 17"]),
    ("4", {}, ["√16"], ["√14", "√4"]),
    ("\\sqrt{51}", {}, ["√51", "\\sqrt 51", "√{51}"], ["√5", "√5·1", "√15"]),
    ("\\frac{\\sqrt{2}}{2}", {}, ["√2/2", "sqrt(2)/2", "1/√2", "½√2"], ["√(2/2)", "√2/3", "√22"]),
    (
        "\\frac13",
        {},
        [
            "\\textcolor{blue}{\\frac13}",
            "\\text{The answer is } \\frac13",
            "{\\color{red} \\frac13}",
            "\\frac 1 3",
            "\\color{red}\\frac13",
            "\\underline{\\frac13}",
            "\\dfrac{1}{3}",
        ],
        [
            "\\textcolor{blue}{\\frac14}",
            "\\text{The answer is not } \\frac13",
            "\\frac 3 1",
            "\\text{The answer is } \\frac14",
        ],
    ),
    (
        "8",
        {},
        [
            "\\color{red}{8}",
            "8\\tag*{}",
            "\\textcolor{red}{8}",
            "\\mathbf{8}",
            "**8**",
            "\\text{Answer: }8",
            "8\\tag{1}",
            "\\bm{8}",
        ],
        ["\\color{red}{9}", "8 8", "\\tag{8}"],
    ),
    (
        "60^\\circ",
        {},
        ["60º", "60°", "60", "60^{\\circ}", "60 \\text{ degrees}", "60\\degree"],
        ["61°", "60'", "\\frac{\\pi}{3}", "60\\%"],
    ),
    (
        "\\log_2 3",
        {},
        ["\\log_2 3", "\\log_2(3)", "\\log_{2}{3}", "\\frac{\\ln 3}{\\ln 2}"],
        ["\\log_3 2", "\\log 3", "\\log_2 4"],
    ),
    ("\\frac{1}{3}", {}, ["\\frac 1 3", "\\frac1 3", "\\frac{1} 3"], ["\\frac 1 4"]),
    ("7", {}, [], ["3 4", "2 3", "3\\ 4"]),
    (
        "\\sin 10^\\circ",
        {},
        [
            "\\sin 10^\\circ",
            "\\sin(10^\\circ)",
            "\\cos 80^\\circ",
            "\\sin 10°",
            "\\cos(80^{\\circ})",
            "\\sin\\frac{\\pi}{18}",
            "\\sin{10^\\circ}",
            "\\sin\\left(10^\\circ\\right)",
        ],
        ["\\sin 10", "\\sin 11^\\circ", "\\cos 10^\\circ", "\\sin 10 \\text{ degrees}", "10^\\circ"],
    ),
    ("\\tan 15^\\circ", {}, ["2-\\sqrt3", "\\tan(15^\\circ)"], ["\\tan 15", "2+\\sqrt3"]),
    (
        "\\$18.90",
        {},
        [
            "18.90 \\text{ USD}",
            "\\$18.90",
            "18.9",
            "18.90 \\text{ dollars}",
            "1890\\text{ cents}",
            "USD 18.90",
            "$18.90",
        ],
        ["18.90 \\text{ cents}", "\\$18", "18.90 \\text{ euros}", "€18.90"],
    ),
    ("5.4 \\text{ cents}", {}, ["5.4", "5.4 \\text{ cents}", "\\$0.054"], ["\\$5.4", "5.4\\text{ dollars}"]),
    ("32348", {}, ["\\$32,348", "\\$32{,}348", "32,348\\text{ dollars}"], ["\\$32.348"]),
    (
        "\\begin{pmatrix} -1/3 \\\\ 2/3 \\end{pmatrix}",
        {},
        ["\\begin{bmatrix} -\\frac13 \\\\ \\frac23 \\end{bmatrix}"],
        ["\\begin{pmatrix} 1/3 \\\\ 2/3 \\end{pmatrix}"],
    ),
    ("1+2i", {}, ["1+2i", "2i+1", "1+2\\mathrm{i}"], ["1-2i", "2+i", "3"]),
    ("2k+2", {}, ["2(k+1)", "2*(k+1)", "2k + 2", "2\\cdot k+2"], ["2k+1", "2(k+2)"]),
    ("(3,4]", {}, ["(3, 4]", "3<x\\le 4", "3 < x \\leq 4", "x\\in(3,4]"], ["[3,4)", "(3,4)", "(4,3]"]),
    ("\\frac{\\pi^2-9}{9}", {}, ["(pi^2-9)/9", "\\frac{1}{9}(\\pi^2-9)"], ["(pi^2+9)/9"]),
    ("10^{1/100}", {}, ["10^(1/100)", "\\sqrt[100]{10}"], ["10^{100}", "10^1/100"]),
    ("2^{10}", {}, ["2^10", "1024", "2**10"], ["2^1", "20", "2^{1}0"]),
    ("\\emptyset", {}, ["\\varnothing", "∅", "\\{\\}"], ["\\{0\\}", "0"]),
    ("50", {}, ["50\\%", "50 \\text{ percent}"], ["0.5"]),
    ("2021 \\cdot 505 \\cdot 337", {}, ["2021*505*337"], ["2021*505"]),
    (
        "\\frac{\\log 2}{\\log 2-\\log 3}",
        {},
        ["\\frac{\\ln 2}{\\ln 2-\\ln 3}", "\\frac{\\ln 2}{\\ln(2/3)}"],
        ["\\frac{\\ln 2}{\\ln 3-\\ln 2}"],
    ),
    (
        "\\left\\lfloor\\log _{2} n\\right\\rfloor+1",
        {},
        ["\\lfloor \\log_2 n \\rfloor + 1", "⌊log_2(n)⌋+1", "1+\\lfloor\\log_2 n\\rfloor"],
        ["\\lceil \\log_2 n \\rceil + 1", "\\lfloor\\log_2 n\\rfloor"],
    ),
]


@pytest.fixture(scope="module", autouse=True)
def no_worker_left():
    yield
    pool.shared_pool().close()


def test_every_rule_accepts_what_it_is_for_and_refuses_the_rest():
    asked = [
        (Gold(gold, **rules), answer, expected)
        for gold, rules, right, wrong in CASES
        for expected, answers in ((True, right), (False, wrong))
        for answer in answers
    ]
    judged = grade([gold for gold, *_ in asked], [f"So it is $\\boxed{{{answer}}}$." for _, answer, _ in asked])
    differing = [
        f"{answer} for {gold.text} should be {expected}: {verdict.reason}"
        for (gold, answer, expected), verdict in zip(asked, judged, strict=True)
        if verdict.correct != expected or verdict.error
    ]
    assert differing == []
