"""Private names of OpenVINO. The key is one of a graph's runtime information, which takes any: a test compiles a graph
and looks whether OpenVINO still goes by it.
"""

from __future__ import annotations

from typing import Any

KEPT_AS_IT_IS = "decompression_0"  # the key that `ov::is_decompression` asks for


def keep_bfloat16(model: Any) -> Any:
    """The same openvino.Model; OpenVINO will not widen its bfloat16 weights to a copy in float32 beside them."""
    for node in model.get_ops():
        source = node.input_value(0).get_node() if node.get_type_name() == "Convert" else None
        if source and source.get_type_name() == "Constant" and source.get_element_type().get_type_name() == "bf16":
            node.get_rt_info()[KEPT_AS_IT_IS] = True
    return model
