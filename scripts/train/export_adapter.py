"""Exports a training checkpoint to the adapter layout that the engine loads (PEFT names for LoRA, the public names for routers).

usage: export_adapter.py CHECKPOINT.pt MODEL_DIR      writes MODEL_DIR/adapter.safetensors and MODEL_DIR/adapter_config.json
       needs: torch, safetensors

A checkpoint is {"net": state_dict}: `A.{m}{l}` [rank, in] and `B.{m}{l}` [out, rank] for m in q k v o g u d (gate, up, down),
`R.rq{l}` [H*d, hidden] and `R.rk{l}` [G*d, hidden] for the routing layers. Rows are in Hugging Face order (halves rotate).
Effective weight: W + (lora_alpha / r) * B @ A.
"""
import json
import os
import sys

import torch
from safetensors.torch import save_file

PREFIX = "base_model.model.model.layers"
LORA_MODULES = {
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
    "g": "mlp.gate_proj", "u": "mlp.up_proj", "d": "mlp.down_proj",
}
ROUTERS = {"rq": "self_attn.router_q_proj.0", "rk": "self_attn.router_k_proj.0"}
LORA_SCALE = 2.0  # as trained


def adapter_name(key):
    """`A.q0` -> `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`"""
    kind, rest = key.split(".")
    name = rest.rstrip("0123456789")
    layer = rest[len(name):]
    if kind == "R":
        return f"{PREFIX}.{layer}.{ROUTERS[name]}.weight"
    return f"{PREFIX}.{layer}.{LORA_MODULES[name]}.lora_{kind}.weight"


def convert(state):
    out = {}
    for key, value in state.items():
        value = value.to(torch.float16).contiguous()
        if not torch.isfinite(value).all():
            raise SystemExit(f"{key}: not finite in float16")
        out[adapter_name(key)] = value
    return out


def peft_config(rank):
    return {
        "peft_type": "LORA", "r": rank, "lora_alpha": int(rank * LORA_SCALE),
        "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "target_modules": [m.split(".")[1] for m in LORA_MODULES.values()],
        "bias": "none", "fan_in_fan_out": False, "use_rslora": False,
    }


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    state = torch.load(sys.argv[1], map_location="cpu")["net"]
    tensors = convert(state)
    rank = state["A.q0"].shape[0]
    path = os.path.join(sys.argv[2], "adapter.safetensors")
    save_file(tensors, path, metadata={"format": "pt"})
    with open(os.path.join(sys.argv[2], "adapter_config.json"), "w") as f:
        json.dump(peft_config(rank), f, indent=2)
        f.write("\n")
    print(f"{path}: {len(tensors)} tensors, {os.path.getsize(path)} bytes")


if __name__ == "__main__":
    main()
