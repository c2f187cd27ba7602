"""Qwen2-VL's chat template, for checkpoints that have none of their own."""

from __future__ import annotations

from paddlemix.models.qwen2_vl.tokenizer import CONTROL_TOKENS
from paddlemix.processors.chat_template import ChatTemplate

# The published behaviour: a default system turn, vision blocks with optional numbers, ChatML round every turn.
TEMPLATE = (
    "{% set count = namespace(image=0, video=0) %}"
    "{% for message in messages %}"
    "{% if loop.first and message.role != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' or 'image' in part or 'image_url' in part %}"
    "{% set count.image = count.image + 1 %}"
    "{% if add_vision_id %}Picture {{ count.image }}: {% endif %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'video' or 'video' in part %}"
    "{% set count.video = count.video + 1 %}"
    "{% if add_vision_id %}Video {{ count.video }}: {% endif %}"
    "<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Qwen2VLChatTemplate(ChatTemplate):
    """A compiled chat template, by default the published one."""

    default = TEMPLATE
    control_tokens = CONTROL_TOKENS
