"""A graph with its weights inside."""

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

from models.preprocessing import Preprocessing
from models.spec.parse import load_model
from models.spec.presets import model_presets
from service.export.self_contained import self_contained
from service.predictions.weights import Weights


def test_tensors_of_the_graph_that_are_no_weights_stay_in_the_file() -> None:
    """Such as the indices of Swin's windows, which its weights file does not have."""
    weight = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="weights.safetensors")
    index = numpy_helper.from_array(np.array([2, 0, 2, 1]), "index")
    gather = helper.make_node("Gather", ["weight", "index"], ["logits"])
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [4])
    graph = helper.make_graph([gather], "one", [], [output], [weight, index])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    seen = Preprocessing(3, 32, 32, (0.5,) * 3, (0.5,) * 3, ("cat", "dog"))
    described = Weights(1, "best", 1, "0" * 64, load_model(model_presets()["baseline"]), seen)
    values = np.array([0.5, -1.0, 7.0], np.float32)

    file = b"".join(self_contained(model.SerializeToString(), described, save({"weight": values})))

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert session.run(["logits"], {})[0].tolist() == [7.0, 0.5, 7.0, -1.0]
