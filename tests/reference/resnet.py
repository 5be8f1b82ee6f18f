"""ResNet-18 written out on a dict of weights, in evaluation mode: a twin of `ResNet18`."""

import torch.nn.functional as F


def resnet18(state, x, *, stem):
    """Return the logits; `state` has the usual names behind "encoder."."""
    w = {name.removeprefix("encoder."): tensor for name, tensor in state.items()}

    def normalised(x, at):
        mean, var = w[f"{at}.running_mean"], w[f"{at}.running_var"]
        return F.batch_norm(x, mean, var, w[f"{at}.weight"], w[f"{at}.bias"])

    if stem == "imagenet":
        x = F.conv2d(x, w["conv1.weight"], stride=2, padding=3)
        x = F.max_pool2d(F.relu(normalised(x, "bn1")), 3, 2, 1)
    else:
        x = F.relu(normalised(F.conv2d(x, w["conv1.weight"], padding=1), "bn1"))
    for stage, stride in ((1, 1), (2, 2), (3, 2), (4, 2)):
        for block in (0, 1):
            at, step = f"layer{stage}.{block}", stride if block == 0 else 1
            out = F.conv2d(x, w[f"{at}.conv1.weight"], stride=step, padding=1)
            out = F.relu(normalised(out, f"{at}.bn1"))
            out = normalised(F.conv2d(out, w[f"{at}.conv2.weight"], padding=1), f"{at}.bn2")
            if stage > 1 and block == 0:
                shortcut = F.conv2d(x, w[f"{at}.downsample.0.weight"], stride=2)
                x = normalised(shortcut, f"{at}.downsample.1")
            x = F.relu(x + out)
    return F.linear(x.mean((2, 3)), w["decoder.weight"], w["decoder.bias"])
