"""Which of the built ops there are."""

from __future__ import annotations

from paddlemix._environment import gpu_is_usable
from paddlemix.doctor.finding import Finding
from paddlemix.ops.build import BUILD_COMMAND, CHOICE_VARIABLE
from paddlemix.ops.images.built import find_library
from paddlemix.ops.tensors import built


def check_tensor_ops() -> list[Finding]:
    """Look for the ops on tensors, of the CPU and of the card."""
    found = built.library()
    kernels = found.handle.paddlemix_instruction_set().decode() if found.handle else ""
    lines = [_line("ops, CPU", found.reason, f"built: {kernels} kernels, {built.num_threads()} threads")]
    if gpu_is_usable():
        lines.append(_line("ops, GPU", built.cuda_library().reason, "built: norms, rotary, swiglu, the head's loss"))
    return lines


def check_image_ops() -> Finding:
    """Look for the ops on images, which data workers call."""
    library, reason = find_library()
    return _line("ops, images", reason, f"built: {library.instruction_set} kernels" if library else "")


def _line(subject: str, reason: str, found: str) -> Finding:
    if not reason:
        return Finding(subject, found)
    asked = CHOICE_VARIABLE in reason
    advice = f"Unset {CHOICE_VARIABLE}." if asked else f"Slower without them. From the repository: {BUILD_COMMAND}"
    return Finding(subject, f"none: {reason.removesuffix(': ' + BUILD_COMMAND)}", advice)
