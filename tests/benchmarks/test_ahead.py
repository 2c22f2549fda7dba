"""What is read from a compiled program's text; and what an H100's compiler makes of our kernels, if it is here."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import hlo

PROGRAM = """HloModule m

%fused (p.0: s8[4,8], p.1: s8[8,2]) -> s32[4,2] {
  %p.0 = s8[4,8]{1,0} parameter(0)
  %p.1 = s8[8,2]{1,0} parameter(1)
  ROOT %dot.1 = s32[4,2]{1,0} dot(%p.0, %p.1), metadata={op_name="jit(f)/while/body/dot_general"}
}

%inner (q: f32[8]) -> f32[8] {
  %q = f32[8]{0} parameter(0)
  ROOT %twice = f32[8]{0} add(%q, %q)
}

%body (t: (s8[4,8], f32[8])) -> (s8[4,8], f32[8]) {
  %t = (s8[4,8]{1,0}, f32[8]{0}) parameter(0)
  %a = s8[4,8]{1,0} get-tuple-element(%t), index=0
  %b = f32[8]{0} get-tuple-element(%t), index=1
  %near = f32[8]{0:T(128)S(1)} copy(%b)
  %again = f32[8]{0} while(%near), body=%inner, backend_config={"known_trip_count":{"n":"3"}}
  %c = f32[8]{0} custom-call(%b, %b), custom_call_target="__cudnn$convForward", metadata={op_name="a/while/body/c"}
  %sum = f32[8]{0} all-reduce(%c), to_apply=%fused
  ROOT %r = (s8[4,8]{1,0}, f32[8]{0}) tuple(%a, %sum)
}

ENTRY %main (x: (s8[4,8], f32[8])) -> (s8[4,8], f32[8]) {
  %x = (s8[4,8]{1,0}, f32[8]{0}) parameter(0)
  %k = bf16[8]{0} constant(0)
  %once = f32[8]{0} convolution(%k, %k), metadata={op_name="a/first"}
  ROOT %w = (s8[4,8]{1,0}, f32[8]{0}) while(%x), body=%body
}
"""


def test_types_of_products_inside_and_outside_the_loop():
    assert hlo.products(PROGRAM, looped=True) == {"s8 x s8": 1, "f32 x f32": 1}
    assert hlo.products(PROGRAM) == {"s8 x s8": 1, "f32 x f32": 1, "bf16 x bf16": 1}
    assert hlo.products(PROGRAM, looped=False) == {"bf16 x bf16": 1}


def test_a_loop_moves_what_its_instructions_read_and_write():
    """A copy onto the chip reads alone; the inner loop runs three times; views are free."""
    copy, inner, convolution, reduced = 32, 3 * 96, 96, 64
    assert hlo.loop_bytes(PROGRAM) == [copy + inner + convolution + reduced]
    assert hlo.collectives(PROGRAM) == {"all-reduce": 32}


@pytest.mark.skipif(find_spec("jax_cuda13_plugin") is None, reason="the compiler of an H100 is not installed")
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_no_product_of_the_kernels_is_in_float32_on_an_h100(precision, tmp_path):
    path = tmp_path / "rows.json"
    options = ["--chips", "h100", "--what", "simulator", "--orders", "kernels", "--precisions", precision]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.ahead", *options, "--images", "32", "--json", str(path)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        check=True,
    )
    assert '"float32_convolutions": 0' in path.read_text()
