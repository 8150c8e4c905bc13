"""Muon for matrices, Adam for the rest; both act on the float32 master weights."""
import torch


def orthogonalise(g):
    """Nearest semi-orthogonal matrix of each [n, k] slice of g [b, n, k], by five quintic Newton-Schulz steps."""
    x = g.to(torch.bfloat16)
    flip = x.shape[-2] > x.shape[-1]
    if flip:
        x = x.transpose(-2, -1)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.transpose(-2, -1)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return (x.transpose(-2, -1) if flip else x).float()


def is_matrix(name, t):
    return (t.dim() >= 2 and min(t.shape[-2:]) >= 64 and not name.endswith(("_fn", "ape"))
            and not name.startswith(("embed", "head")))


def slices(name, t, c):
    """The view [b, n, k] whose slices are separate linear maps."""
    if name.endswith("w13") or name.endswith("w13.weight"):
        return t.reshape(-1, c["moe_intermediate_size"], t.shape[-1])
    if name.endswith("wo_a.weight"):
        return t.reshape(c["o_groups"], c["o_lora_rank"], -1)
    return t.reshape(-1, *t.shape[-2:])


class Optimiser:
    def __init__(self, master, c):
        self.c, self.m, self.v, self.step_count = c, {}, {}, 0
        for n, t in master.items():
            self.m[n] = torch.zeros_like(t)
            if not is_matrix(n, t):
                self.v[n] = torch.zeros_like(t)

    @torch.no_grad()
    def step(self, master, grads, lr_matrix, lr_adam, decay, beta=0.95):
        self.step_count += 1
        groups = {}
        for n, g in grads.items():
            if n in self.v:
                m, v = self.m[n], self.v[n]
                m.lerp_(g, 0.1)
                v.lerp_(g * g, 0.05)
                mh, vh = m / (1 - 0.9 ** self.step_count), v / (1 - 0.95 ** self.step_count)
                master[n].add_(mh / (vh.sqrt() + 1e-8), alpha=-lr_adam)
            else:
                m = self.m[n]
                m.lerp_(g, 1 - beta)
                u = slices(n, g.lerp(m, beta), self.c)
                groups.setdefault(tuple(u.shape[1:]), []).append((n, u))
        for shape, items in groups.items():
            o = orthogonalise(torch.cat([u for _, u in items]))
            i = 0
            for n, u in items:
                w = master[n]
                w.mul_(1 - lr_matrix * decay)
                w.add_(o[i:i + u.shape[0]].reshape(w.shape), alpha=-lr_matrix * 0.2 * max(shape) ** 0.5)
                i += u.shape[0]
