"""Small whole models under the names, and with the arithmetic, of public code: GLoRIA, MGCA, BioViL, CXR-CLIP, CT-CLIP."""

from __future__ import annotations

import torch
from source_models import ResNet, TimmViT
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel, SwinConfig, SwinModel

WIDTH, HIDDEN, WORDS = 8, 16, 12
BERT = {
    "vocab_size": 40, "hidden_size": HIDDEN, "num_hidden_layers": 5, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 16,
}  # fmt: skip
SWIN = {"image_size": 64, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "patch_size": 4}
SEP = 3
OLDER_NAMES = {
    ".attention.q_proj.": ".attention.self.query.",
    ".attention.k_proj.": ".attention.self.key.",
    ".attention.v_proj.": ".attention.self.value.",
    ".attention.o_proj.": ".attention.output.dense.",
    ".attention.relative_position_bias.relative_position_bias_table": ".attention.self.relative_position_bias_table",
    ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
}


def older(weights: dict[str, torch.Tensor], parts: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """The names and the constant that transformers 4 saved, for the Hugging Face models under these prefixes."""
    out = {}
    for name, value in weights.items():
        if name.startswith(parts):
            for new, old in OLDER_NAMES.items():
                name = name.replace(new, old)
        out[name] = value.clone()
    for part in parts:
        if f"{part}embeddings.word_embeddings.weight" in out:
            out[f"{part}embeddings.position_ids"] = torch.arange(16).unsqueeze(0)
    return out


def texts(lengths=(9, 5)) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask of padded texts that end with SEP."""
    ids, mask = torch.zeros(len(lengths), WORDS, dtype=torch.long), torch.zeros(len(lengths), WORDS, dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.tensor([2, *torch.randint(4, 40, (length - 2,)).tolist(), SEP])
        mask[row, :length] = 1
    return ids, mask


def stages(resnet: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The maps of the third and the fourth stage."""
    x = F.max_pool2d(torch.relu(resnet.bn1(resnet.conv1(x))), 3, 2, 1)
    third = resnet.layer3(resnet.layer2(resnet.layer1(x)))
    return third, resnet.layer4(third)


class GloriaImage(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size, self.model = size, ResNet((3, 4, 6, 3), basic=False, width=4, classes=0)
        self.global_embedder, self.local_embedder = nn.Linear(128, HIDDEN), nn.Conv2d(64, HIDDEN, 1, bias=False)

    def forward(self, x):
        x = nn.Upsample(size=(self.size, self.size), mode="bilinear", align_corners=True)(x)
        local, last = stages(self.model, x)
        return self.global_embedder(F.adaptive_avg_pool2d(last, 1).flatten(1)), self.local_embedder(local)


class GloriaText(nn.Module):
    """The sum of the last four layers, pieces of a word added, then the mean over the words and the padding."""

    def __init__(self):
        super().__init__()
        self.model = BertModel(BertConfig(**BERT))

    def forward(self, ids, mask):
        layers = torch.stack(self.model(ids, mask, output_hidden_states=True).hidden_states[-4:])
        pooled = []
        for row, text in enumerate(ids):
            words: list[torch.Tensor] = []
            for position, token in enumerate(text.tolist()):
                state = layers[:, row, position]
                if token % 3 == 1 and words:  # a piece of the word before
                    words[-1] = words[-1] + state
                else:
                    words.append(state)
                if token == SEP:
                    break
            padded = words + [torch.zeros_like(words[0])] * (WORDS - len(words))
            pooled.append(torch.stack(padded).mean(0).sum(0))
        return torch.stack(pooled)


class Gloria(nn.Module):
    def __init__(self, size=64):
        super().__init__()
        self.img_encoder, self.text_encoder = GloriaImage(size), GloriaText()


class Head(nn.Module):
    """MGCA's projection of vectors (``convolution=False``) or of sequences."""

    def __init__(self, inputs, convolution):
        super().__init__()

        def layer(before, after):
            return nn.Conv1d(before, after, 1) if convolution else nn.Linear(before, after)

        norms = nn.BatchNorm1d(20), nn.BatchNorm1d(WIDTH, affine=False)
        self.head = nn.Sequential(layer(inputs, 20), norms[0], nn.ReLU(), layer(20, WIDTH), norms[1])
        self.convolution = convolution

    def forward(self, x):
        return self.head(x.mT).mT if self.convolution else self.head(x)


class MGCAImage(nn.Module):
    def __init__(self, vit, size):
        super().__init__()
        self.size = size
        self.model = TimmViT() if vit else ResNet((3, 4, 6, 3), basic=False, width=4, classes=0)
        if vit:
            del self.model.head
        widths = (HIDDEN, HIDDEN) if vit else (128, 64)
        self.global_embed, self.local_embed = Head(widths[0], False), Head(widths[1], True)

    def forward(self, x):
        if isinstance(self.model, TimmViT):
            tokens = self.model(x)
            return self.global_embed(tokens[:, 0]), self.local_embed(tokens[:, 1:])
        x = nn.Upsample(size=(self.size, self.size), mode="bilinear", align_corners=True)(x)
        local, last = stages(self.model, x)
        return self.global_embed(F.adaptive_avg_pool2d(last, 1).flatten(1)), self.local_embed(local.flatten(2).mT)


class MGCAText(nn.Module):
    """A BERT without token types whose every token has the first position, as the released code calls it."""

    def __init__(self):
        super().__init__()
        self.model = BertModel(BertConfig(**BERT), add_pooling_layer=False)
        self.global_embed, self.local_embed = Head(HIDDEN, False), Head(HIDDEN, True)

    def forward(self, ids, mask):
        with torch.no_grad():
            self.model.embeddings.token_type_embeddings.weight.zero_()
        states = self.model(ids, mask, position_ids=torch.zeros_like(ids)).last_hidden_state
        return self.global_embed(states[:, 0]), self.local_embed(states)


class MGCA(nn.Module):
    def __init__(self, vit, size=64):
        super().__init__()
        self.img_encoder_q, self.text_encoder_q = MGCAImage(vit, size), MGCAText()
        self.patch_local_atten_layer = nn.MultiheadAttention(WIDTH, 1)
        self.prototype_layer = nn.Linear(WIDTH, 5, bias=False)

    def published(self):
        weights = older(self.state_dict(), ("text_encoder_q.model.",))
        del weights["text_encoder_q.model.embeddings.token_type_embeddings.weight"]
        weights["text_encoder_q.model.encoder.layer.0.crossattention.self.query.weight"] = torch.zeros(2, 2)
        return weights


class BioViLImage(nn.Module):
    """``earlier`` adds the layers of BioViL-T, here without an earlier image."""

    def __init__(self, earlier):
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.encoder = ResNet((3, 4, 6, 3), basic=False, width=4, classes=5)
        if earlier:
            self.encoder.backbone_to_vit = nn.Conv2d(128, 10, 1, bias=False)
            self.encoder.vit_pooler = nn.Linear(2, 2)
            self.encoder.missing_previous_emb = nn.Parameter(torch.zeros(1, 10, 1, 1))
        self.projector = nn.Module()
        layers = nn.Conv2d(20 if earlier else 128, WIDTH, 1, bias=False), nn.Conv2d(WIDTH, WIDTH, 1)
        self.projector.model = nn.Sequential(layers[0], nn.BatchNorm2d(WIDTH), nn.ReLU(), layers[1])

    def forward(self, x):
        x = stages(self.encoder.encoder, x)[1]
        if hasattr(self.encoder, "backbone_to_vit"):
            x = self.encoder.backbone_to_vit(x)
            x = torch.cat([x, self.encoder.missing_previous_emb.repeat(len(x), 1, *x.shape[2:])], 1)
        x = self.projector.model(x)
        return x.mean((2, 3)), x


class CXRBert(nn.Module):
    def __init__(self):
        super().__init__()
        self.bert = BertModel(BertConfig(**BERT), add_pooling_layer=False)
        self.cls = nn.Linear(2, 2)
        self.cls_projection_head = nn.Module()
        self.cls_projection_head.dense_to_hidden = nn.Linear(HIDDEN, WIDTH)
        self.cls_projection_head.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.cls_projection_head.dense_to_output = nn.Linear(WIDTH, WIDTH)

    def forward(self, ids, mask):
        head = self.cls_projection_head
        x = F.gelu(head.dense_to_hidden(self.bert(ids, mask).last_hidden_state[:, 0]))
        return head.dense_to_output(head.LayerNorm(x))


class CXRClip(nn.Module):
    def __init__(self, swin):
        super().__init__()
        self.image_encoder, self.text_encoder = nn.Module(), nn.Module()
        if swin:
            self.image_encoder.image_encoder = SwinModel(SwinConfig(**SWIN))
        else:
            self.image_encoder.resnet = ResNet((3, 4, 6, 3), basic=False, width=4, classes=0)
        self.text_encoder.text_encoder = BertModel(BertConfig(**BERT))
        self.image_projection, self.text_projection = nn.Module(), nn.Module()
        self.image_projection.projection = nn.Linear(16 if swin else 128, WIDTH)
        self.text_projection.projection = nn.Linear(HIDDEN, WIDTH)
        self.logit_scale = nn.Parameter(torch.tensor(3.0))

    def encode_image(self, x):
        if hasattr(self.image_encoder, "resnet"):
            pooled = stages(self.image_encoder.resnet, x)[1].mean((2, 3))
        else:
            pooled = self.image_encoder.image_encoder(x).last_hidden_state[:, 0]
        return self.image_projection.projection(pooled)

    def encode_text(self, ids, mask):
        states = self.text_encoder.text_encoder(ids, mask).last_hidden_state
        return self.text_projection.projection(states[torch.arange(len(ids)), mask.sum(1) - 1])


class Norm(nn.Module):
    """CT-ViT's layer norm."""

    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))
        self.register_buffer("beta", torch.zeros(width))

    def forward(self, x):
        return F.layer_norm(x, x.shape[-1:], self.gamma, self.beta)


class Position(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.dsconv = nn.Conv3d(width, width, 3, groups=width)

    def forward(self, x, shape):
        y = x.reshape(*shape, -1).movedim(-1, 1)
        y = self.dsconv(F.pad(y, (1, 1, 1, 1, 2, 0), value=0.0))
        return y.movedim(1, -1).reshape(x.shape)


class CTAttention(nn.Module):
    def __init__(self, width, heads, size):
        super().__init__()
        self.heads = heads
        self.norm, self.context_norm = Norm(width), Norm(width)
        self.null_kv = nn.Parameter(torch.zeros(heads, 0, size))
        self.to_q, self.to_kv = (
            nn.Linear(width, heads * size, bias=False),
            nn.Linear(width, 2 * heads * size, bias=False),
        )
        self.q_scale, self.k_scale = nn.Parameter(torch.ones(size)), nn.Parameter(torch.ones(size))
        self.to_out = nn.Linear(heads * size, width, bias=False)

    def forward(self, x, bias):
        key, value = self.to_kv(x).chunk(2, -1)
        parts = [self.to_q(self.norm(x)), key, value]
        query, key, value = (part.reshape(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in parts)
        query, key = F.normalize(query, dim=-1) * self.q_scale, F.normalize(key, dim=-1) * self.k_scale
        similarity = 8 * query @ key.mT
        weights = (similarity if bias is None else similarity + bias).softmax(-1)
        return self.to_out((weights @ value).transpose(1, 2).flatten(2))


class Gated(nn.Module):
    def forward(self, x):
        x, gate = x.chunk(2, dim=-1)
        return F.gelu(gate) * x


class CTTransformer(nn.Module):
    def __init__(self, width, heads, size, depth):
        super().__init__()
        inner = int(4 * (2 / 3) * width)
        self.layers = nn.ModuleList()
        for _ in range(depth):
            norm, wide = nn.LayerNorm(width), nn.Linear(width, 2 * inner, bias=False)
            feed = nn.Sequential(norm, wide, Gated(), nn.Dropout(0.0), nn.Linear(inner, width, bias=False))
            layer = nn.Module()
            for number, part in ((0, Position(width)), (1, CTAttention(width, heads, size)), (3, feed)):
                layer.add_module(str(number), part)
            self.layers.append(layer)
        self.norm_out = Norm(width)

    def forward(self, x, shape, bias=None):
        for layer in self.layers:
            parts = dict(layer.named_children())
            x = parts["0"](x, shape) + x
            x = parts["1"](x, bias) + x
            x = parts["3"](x) + x
        return self.norm_out(x)


class CTViT(nn.Module):
    def __init__(self, width=HIDDEN, side=16, patch=4, slab=2, heads=2, size=6, depth=2, codes=30):
        super().__init__()
        self.grid, self.patch, self.slab = side // patch, patch, slab
        pixels = patch * patch * slab
        self.spatial_rel_pos_bias = nn.Module()
        hidden = [nn.Sequential(nn.Linear(n, width), nn.LeakyReLU(0.1)) for n in (2, width)]
        self.spatial_rel_pos_bias.net = nn.ModuleList([*hidden, nn.Linear(width, heads)])
        self.to_patch_emb_first_frame = nn.Linear(2, 2)
        self.to_patch_emb = nn.Sequential(
            nn.Identity(), nn.LayerNorm(pixels), nn.Linear(pixels, width), nn.LayerNorm(width)
        )
        self.enc_spatial_transformer = CTTransformer(width, heads, size, depth)
        self.enc_temporal_transformer = CTTransformer(width, heads, size, depth)
        self.vq = nn.Module()
        self.vq._codebook = nn.Module()
        for name, value in (("initted", (1,)), ("cluster_size", (1, codes)), ("embed", (1, codes, width))):
            self.vq._codebook.register_buffer(name, torch.zeros(value))
        self.to_pixels = nn.Sequential(nn.Linear(width, pixels))

    def bias(self):
        axis = torch.arange(self.grid)
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).flatten(1).T
        distance = grid[:, None] - grid[None, :]
        x = torch.sign(distance) * torch.log(distance.abs() + 1)
        for layer in self.spatial_rel_pos_bias.net:
            x = layer(x.float())
        return x.permute(2, 0, 1)

    def tokens(self, video):
        """The tokens (b, t, h, w, d) of a video (b, c, t, h, w)."""
        b, c, t, h, w = (*video.shape[:2], video.shape[2] // self.slab, self.grid, self.grid)
        x = video.reshape(b, c, t, self.slab, h, self.patch, w, self.patch).permute(0, 2, 4, 6, 1, 3, 5, 7)
        x = self.to_patch_emb(x.flatten(4))
        shape = x.shape[:4]
        x = self.enc_spatial_transformer(x.reshape(b * t, h * w, -1), shape, self.bias())
        x = x.reshape(b, t, h, w, -1).permute(0, 2, 3, 1, 4).reshape(b * h * w, t, -1)
        return self.enc_temporal_transformer(x, shape).reshape(b, h, w, t, -1).permute(0, 3, 1, 2, 4)

    def forward(self, video):
        x = self.tokens(video)
        codes = self.vq._codebook.embed[0]
        return codes[(F.normalize(x, dim=-1) @ F.normalize(codes, dim=-1).T).argmax(-1)]


class CTClip(nn.Module):
    def __init__(self):
        super().__init__()
        self.text_transformer, self.visual_transformer = BertModel(BertConfig(**BERT)), CTViT()
        self.to_text_latent = nn.Linear(HIDDEN, WIDTH, bias=False)
        self.to_visual_latent = nn.Linear(16 * HIDDEN, WIDTH, bias=False)
        self.to_text_latent_extra = nn.Linear(HIDDEN, WIDTH, bias=False)
        self.to_visual_latent_extra = nn.Linear(16 * HIDDEN, WIDTH, bias=False)
        self.temperature = nn.Parameter(torch.tensor(1.0))

    def encode_image(self, video):
        tokens = self.visual_transformer(video)
        return self.to_visual_latent(tokens.mean(1).flatten(1)), tokens

    def encode_text(self, ids, mask):
        return self.to_text_latent(self.text_transformer(ids, mask).last_hidden_state[:, 0])
