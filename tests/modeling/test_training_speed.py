"""What makes training quick changes nothing else: the loss, dropout and attention."""

from unittest.mock import Mock, patch

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import prune
from transformer2017 import Transformer2017ForConditionalGeneration
from transformer2017.configuration import Transformer2017Config
from transformer2017.modeling import modeling_transformer2017, training_speed
from transformer2017.modeling.attention import scaled_dot_product_attention
from transformer2017.modeling.encoder import EncoderLayer
from transformer2017.modeling.training_speed import SHORT, Dropout, projected_cross_entropy, quick_on_cpu
from transformers.integrations.sdpa_attention import sdpa_attention_forward


@pytest.fixture
def projection(monkeypatch) -> nn.Linear:
    """A vocabulary of 11, with a bias, and chunks of 4 tokens."""
    monkeypatch.setattr(training_speed, "CHUNK", 44)
    return nn.Linear(6, 11).double()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("tokens", [None, 50])
@pytest.mark.parametrize("size", [1.0, 2000.0], ids=["usual logits", "probabilities that are 0 in float64"])
def test_loss_and_gradients_are_those_of_torchs_cross_entropy(projection, smoothing, tokens, size):
    states = (size * torch.randn(3, 5, 6, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(11, (3, 5))
    labels[1, 2:] = -100
    loss = projected_cross_entropy(states, projection, labels, smoothing, tokens)
    logits = projection(states).flatten(0, 1)
    plain = F.cross_entropy(logits, labels.flatten(), label_smoothing=smoothing, reduction="sum") / (tokens or 12)
    torch.testing.assert_close(loss, plain)
    inputs = (states, *projection.parameters())
    for mine, theirs in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(plain, inputs), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_loss_passes_torchs_check_of_gradients(projection):
    labels = torch.tensor([[3, 0, 10, 7, 1], [5, 5, -100, -100, -100]])
    states = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x: projected_cross_entropy(x, projection, labels, 0.1), states)


def test_loss_passes_torchs_check_of_second_gradients(projection):
    """Of penalties on gradients, and of optimisers that look at curvature."""
    labels = torch.tensor([[3, 0, 10, 7, 1], [5, 5, -100, -100, -100]])
    inputs = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True), *projection.parameters()

    def loss(states, weight, bias):
        return projected_cross_entropy(states, Mock(weight=weight, bias=bias), labels, 0.1)

    torch.autograd.gradgradcheck(loss, inputs)


def test_second_gradients_of_the_model_are_those_with_the_logits(model, monkeypatch):
    """Where the output projection's weights are those of the embeddings too, the loss depends on them in two ways."""
    ids, results = torch.tensor([[5, 6, 9, 2], [7, 8, 2, 0]]), []
    model.double().train().apply(without_dropout)
    for is_plain in (training_speed.is_plain, lambda linear: False):
        monkeypatch.setattr(modeling_transformer2017, "is_plain", is_plain)
        model.zero_grad()
        loss = model(input_ids=ids, labels=ids).loss
        first = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
        sum(gradient.square().sum() for gradient in first).backward()
        results.append([weight.grad for weight in model.parameters() if weight.grad is not None])
    for mine, plain in zip(*results, strict=True):
        torch.testing.assert_close(mine, plain)


def without_dropout(module: nn.Module) -> None:
    if isinstance(module, nn.Dropout):
        module.p = 0.0


def test_gradients_where_the_vocabulary_is_frozen(projection):
    """What needs no gradient gets none."""
    projection.requires_grad_(False)
    states, labels = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True), torch.randint(11, (2, 5))

    def loss(x):
        return projected_cross_entropy(x, projection, labels, 0.1)

    torch.autograd.gradcheck(loss, states)
    torch.autograd.gradgradcheck(loss, states)
    loss(states).backward()
    assert projection.weight.grad is None


def test_loss_under_autocast_is_near_that_in_float32(projection):
    projection.float()
    states, labels = torch.randn(2, 9, 6, requires_grad=True), torch.randint(11, (2, 9))
    exact = projected_cross_entropy(states, projection, labels, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = projected_cross_entropy(states, projection, labels, 0.1)
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0.0)
    gradients = (torch.autograd.grad(loss, states)[0] for loss in (rounded, exact))
    torch.testing.assert_close(*gradients, rtol=0.05, atol=0.01)


def test_loss_of_a_batch_without_tokens_has_no_gradient(projection):
    states = torch.randn(1, 3, 6, dtype=torch.float64, requires_grad=True)
    projected_cross_entropy(states, projection, torch.full((1, 3), -100), 0.1, 7).backward()
    assert not states.grad.any()


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_zeroes_at_its_rate_and_keeps_the_mean(rate, dtype):
    x = torch.ones(1001, 999, dtype=dtype, requires_grad=True)
    y = Dropout(rate)(x)
    assert (y == 0).double().mean().item() == pytest.approx(rate, abs=5 * (rate * (1 - rate) / x.numel()) ** 0.5)
    assert y.max().item() == pytest.approx(1 / (1 - rate), rel=1e-4 if dtype == torch.float32 else 4e-3)
    assert y.double().mean().item() == pytest.approx(1.0, abs=5e-3)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_dropout_keeps_no_more_than_random_numbers_for_its_gradient():
    """In float32 they take half the memory of the factors that come of them; the gradient of the gradient is right."""
    kept, x = [], torch.randn(64, 32, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: kept.append(saved) or saved, lambda saved: saved):
        y = Dropout(0.3)(x)
    assert [saved.element_size() for saved in kept] == [2]
    factors = (y / x).detach()
    direction = torch.randn(64, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad((y * direction).sum(), x, create_graph=True)
    torch.testing.assert_close(gradient, factors * direction)
    torch.testing.assert_close(torch.autograd.grad(gradient.sum(), direction)[0], factors)


@pytest.mark.parametrize("rate", [1.0, 0.999_999])
def test_dropout_of_all_is_nothing(rate):
    assert not Dropout(rate)(torch.ones(4)).any()


def test_dropout_goes_through_what_torch_makes_of_functions():
    """Jacobians, gradients of several losses at once, and a batch of functions, as through `nn.Dropout`."""
    x = torch.ones(6, requires_grad=True)
    y = Dropout(0.5)(x)
    (each,) = torch.autograd.grad(y, x, torch.eye(6), is_grads_batched=True)
    assert torch.equal(each, y.detach().diag())
    assert torch.func.jacrev(Dropout(0.5))(torch.ones(6)).unique().tolist() in ([0.0], [0.0, 2.0])
    same = torch.func.vmap(Dropout(0.5), randomness="same")(torch.ones(3, 8))
    assert torch.equal(same[0], same[2])


def test_gradients_by_torch_func_are_those_of_backward(model):
    model.train().apply(without_dropout)
    batch = {"input_ids": torch.tensor([[5, 6, 2]]), "labels": torch.tensor([[7, 8, 2]])}
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    found = torch.func.grad(lambda given: torch.func.functional_call(model, given, kwargs=batch).loss)(weights)
    model(**batch).loss.backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, atol=1e-6, rtol=1e-4)


def test_dropout_of_neighbours_is_independent():
    dropped = Dropout(0.5)(torch.ones(2**20)) == 0
    for distance in (1, 2, 4, 8, 64):
        both = (dropped[distance:] & dropped[:-distance]).double().mean().item()
        assert both == pytest.approx(0.25, abs=3e-3)


def test_dropout_repeats_under_a_seed_and_rests_in_evaluation():
    x, layer = torch.randn(7, 5), Dropout(0.4)
    torch.manual_seed(1)
    first, second = layer(x), layer(x)
    torch.manual_seed(1)
    assert torch.equal(layer(x), first)
    assert not torch.equal(first, second)
    assert layer.eval()(x) is x


@pytest.mark.parametrize("together", [0, 2**17], ids=["large", "small"])
def test_three_projections_in_one_product_are_those_of_the_maps(model, monkeypatch, together):
    """Queries, keys and values in training, with the gradients of each map's weights; large maps are apart."""
    monkeypatch.setattr(training_speed, "TOGETHER", together)
    attention, x = model.model.encoder.layers[0].self_attention.double().train(), torch.randn(2, 5, 32).double()
    results = []
    for plain in (True, False):
        monkeypatch.setattr(training_speed, "is_plain", lambda linear, plain=plain: plain)
        attention.zero_grad()
        y, _ = attention(x)
        y.square().sum().backward()
        results.append([y, *(p.grad.clone() for p in attention.parameters())])
    for together, apart in zip(*results, strict=True):
        torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("together", [0, 2**17], ids=["large", "small"])
@pytest.mark.parametrize(("dtype", "of_products"), [(torch.float32, torch.bfloat16), (torch.float64, torch.float64)])
def test_three_projections_are_in_the_precision_of_autocast(model, monkeypatch, together, dtype, of_products):
    """It leaves float64 alone; the gradient reaches the input in its own precision."""
    monkeypatch.setattr(training_speed, "TOGETHER", together)
    attention, x = model.model.encoder.layers[0].self_attention.to(dtype).train(), torch.randn(2, 5, 32, dtype=dtype)
    maps, results = (attention.w_q, attention.w_k, attention.w_v), []
    for project in (training_speed.project_together, lambda x, maps: [each(x) for each in maps]):
        x.requires_grad_(True).grad = None
        with torch.autocast("cpu", torch.bfloat16):
            projected = project(x, maps)
        assert {each.dtype for each in projected} == {of_products}
        sum(each.double().square().sum() for each in projected).backward()
        results.append([*projected, x.grad])
    torch.testing.assert_close(*results, rtol=2e-2, atol=2e-2)


def test_layers_are_traced_without_numbers():
    """On the device "meta", which has no autocast, a layer of large maps tells its shapes."""
    with torch.device("meta"):
        layer = EncoderLayer(Transformer2017Config(vocab_size=50, attn_implementation="eager"), 0).train()
        assert layer(torch.zeros(2, 5, 512)).shape == (2, 5, 512)


def test_an_adapter_in_place_of_a_map_is_used(model):
    """A class of its own, as peft makes, is called, wherever it stands."""

    class Adapted(nn.Linear):
        def forward(self, x):
            return super().forward(x) + 1.0

    batch = {"input_ids": torch.tensor([[5, 6, 2]]), "labels": torch.tensor([[7, 8, 2]])}
    model.train().apply(without_dropout)
    before = model(**batch).loss
    for parent, name in ((model.model.encoder.layers[0].self_attention, "w_v"), (model, "lm_head")):
        getattr(parent, name).__class__ = Adapted
        after = model(**batch).loss
        assert torch.isclose(after, before, atol=1e-6) == (name == "lm_head")  # all logits one higher: the same loss
        before = after
    assert model(**batch).logits is not None


def maps_of(model) -> dict[str, nn.Linear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_a_hook_on_any_map_is_called_in_training(model, kind):
    """Probes of activations, pruning, and what counts or changes gradients are hooks."""
    called, batch = set(), {"input_ids": torch.tensor([[5, 6, 2]]), "labels": torch.tensor([[7, 8, 2]])}
    for name, linear in maps_of(model).items():
        getattr(linear, f"register_{kind}_hook")(lambda *_, name=name: called.add(name))
    model.train()(**batch).loss.backward()
    assert called == set(maps_of(model))


def test_a_hook_on_all_modules_is_called_in_training(model):
    called = []
    hook = register_module_forward_hook(lambda module, *_: called.append(module))
    model.train()(input_ids=torch.tensor([[5, 6, 2]]), labels=torch.tensor([[7, 8, 2]]))
    hook.remove()
    assert set(maps_of(model).values()) <= set(called)


def test_a_map_without_a_bias_trains(model):
    attention = model.model.encoder.layers[0].self_attention
    attention.w_k = nn.Linear(attention.w_k.in_features, attention.w_k.out_features, bias=False)
    model.train()(input_ids=torch.tensor([[5, 6, 2]]), labels=torch.tensor([[7, 8, 2]])).loss.backward()
    assert attention.w_k.weight.grad.any()


def test_pruned_weights_stay_pruned_in_training(model):
    """torch.nn.utils.prune makes the weights anew before each call, by a hook."""
    batch = {"input_ids": torch.tensor([[5, 6, 2]]), "labels": torch.tensor([[7, 8, 2]])}
    optimiser = torch.optim.SGD(model.train().parameters(), lr=0.1)
    for linear in maps_of(model).values():
        if linear is not model.lm_head:  # whose weights are those of the embeddings
            prune.l1_unstructured(linear, "weight", amount=0.5)
    for _ in range(2):
        optimiser.zero_grad()
        model(**batch).loss.backward()
        optimiser.step()
    query = model.model.encoder.layers[0].self_attention.w_q
    assert query.weight_orig.grad[query.weight_mask == 0].eq(0).all()
    assert query.weight_orig.grad[query.weight_mask == 1].ne(0).any()


def test_a_forward_of_its_own_in_place_of_a_map_is_used(model):
    """accelerate puts one in the place of a module's own, to move weights to where they are needed."""
    attention, x = model.model.encoder.layers[0].self_attention.eval(), torch.randn(2, 5, 32)
    attention.w_k.forward = lambda x: nn.functional.linear(x, attention.w_k.weight) * 2.0
    wanted, _ = attention(x)
    torch.testing.assert_close(attention.train()(x)[0], wanted)


def test_attention_in_bfloat16_on_a_cpu_is_computed_in_float32():
    module, tensors = nn.Identity(), [torch.randn(2, 3, 5, 4, dtype=torch.bfloat16) for _ in range(3)]
    with torch.autocast("cpu", torch.bfloat16):
        attend = quick_on_cpu(scaled_dot_product_attention)
        heads, weights = attend(module, *tensors, None, scaling=0.5)
    exact, _ = scaled_dot_product_attention(module, *(tensor.float() for tensor in tensors), None, scaling=0.5)
    assert weights.dtype == torch.float32
    assert torch.equal(heads, exact.bfloat16())


def test_short_attention_as_products_drops_weights_at_the_rate():
    """As eq. 1 of the paper and torch's dropout do under the same seed; in evaluation none."""
    module = nn.Module()
    module.is_causal = False
    query, key, value = (torch.randn(2, 3, 9, 4) for _ in range(3))
    for is_training in (True, False):
        module.train(is_training)
        torch.manual_seed(1)
        heads, _ = quick_on_cpu(sdpa_attention_forward)(module, query, key, value, None, scaling=0.5, dropout=0.4)
        torch.manual_seed(1)
        weights = F.dropout(torch.softmax(0.5 * query @ key.mT, -1), 0.4, is_training)
        torch.testing.assert_close(heads, (weights @ value).transpose(1, 2))


@pytest.mark.parametrize("rate", ["attention_dropout", "activation_dropout"])
@pytest.mark.parametrize("length", [9, SHORT + 1], ids=["as products", "by torch's kernel"])
def test_each_rate_of_dropout_acts_in_training_alone(config, rate, length):
    config.dropout = 0.0
    ids = torch.randint(4, 97, (2, length))

    def is_repeated(is_training):
        first, second = (model.train(is_training)(input_ids=ids, decoder_input_ids=ids).logits for _ in range(2))
        return torch.equal(first, second)

    model = Transformer2017ForConditionalGeneration(config)
    assert is_repeated(True)  # or what differs below need not be of that rate
    setattr(config, rate, 0.5)
    model = Transformer2017ForConditionalGeneration(config)
    assert not is_repeated(True)
    assert is_repeated(False)


def masks(target_len: int, source_len: int) -> dict[str, torch.Tensor | None]:
    """What transformers gives SDPA: True for a key to see, or numbers to add, or nothing."""
    seen = torch.rand(2, 1, target_len, source_len) < 0.7
    seen[..., 0] = True
    return {"none": None, "true": seen, "added": torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)}


@pytest.mark.parametrize("mask", ["none", "true", "added"])
@pytest.mark.parametrize("is_causal", [True, False])
def test_short_attention_as_products_is_what_the_kernel_gives(mask, is_causal, monkeypatch):
    """Output and gradients of torch's SDPA, whose kernel is called for long sequences and not for short ones."""
    monkeypatch.setattr(training_speed, "REGISTER", 8)  # whatever this machine has: shorter and longer rows
    module = nn.Module()
    module.is_causal = is_causal
    kernel = nn.functional.scaled_dot_product_attention
    for target_len, source_len, calls in (
        (5, 5, 0),
        (5, 9, 0),
        (1, 5, 0),  # a step of decoding
        (SHORT, SHORT, 0),
        (SHORT + 1, 7, 1),
        (7, SHORT + 1, 1),
    ):
        sizes = ((target_len, 4), (source_len, 4), (source_len, 6))
        tensors = [torch.randn(2, length, 3, width).transpose(1, 2).requires_grad_() for length, width in sizes]
        given = masks(target_len, source_len)[mask]
        goal = torch.randn(2, target_len, 3, 6)

        def results(attend, tensors=tensors, given=given, goal=goal):
            heads, weights = attend(module, *tensors, given, scaling=0.3)
            return heads, weights, torch.autograd.grad((heads * goal).sum(), tensors)

        heads, weights, gradients = results(sdpa_attention_forward)
        with patch.object(nn.functional, "scaled_dot_product_attention", side_effect=kernel) as called:
            own_heads, own_weights, own_gradients = results(quick_on_cpu(sdpa_attention_forward))
        assert called.call_count == calls
        assert own_weights is weights is None
        torch.testing.assert_close(own_heads, heads)
        torch.testing.assert_close(own_gradients, gradients)


def test_a_query_that_sees_no_key_is_left_to_the_kernel():
    """A source that is masked entirely: the kernel attends to nothing, and eq. 1 would attend to all alike."""
    module, tensors = nn.Module(), [torch.randn(2, 3, 5, 4) for _ in range(3)]
    module.is_causal, seen = False, torch.ones(2, 1, 5, 5, dtype=torch.bool)
    seen[1] = False
    heads, _ = quick_on_cpu(sdpa_attention_forward)(module, *tensors, seen, scaling=0.5)
    torch.testing.assert_close(heads, sdpa_attention_forward(module, *tensors, seen, scaling=0.5)[0])


def test_decoding_step_by_step_in_training_mode_is_decoding_at_once(model):
    """With dropout at 0, as for estimates of doubt or for learning from one's own outputs."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    ids = torch.randint(4, 97, (3, 6))
    cached, whole = (model.train().generate(ids, max_new_tokens=9, use_cache=use_cache) for use_cache in (True, False))
    assert model.decoded_by.startswith("transformers")
    assert torch.equal(cached, whole)
    assert torch.equal(cached, model.eval().generate(ids, max_new_tokens=9))


def test_an_implementation_of_the_users_own_gets_what_it_would_get_without_us():
    """In float32 nothing is to be made quicker: even a mask of no tensor, as flex attention has it, is passed on."""
    given = (nn.Module(), *(torch.randn(2, 3, 5, 4) for _ in range(3)), object())
    own = Mock(return_value=("heads", "weights"))
    assert quick_on_cpu(own)(*given, scaling=0.5) == ("heads", "weights")
    own.assert_called_once_with(*given, scaling=0.5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_loss_is_summed_in_float32_under_autocast(dtype, monkeypatch):
    """Over many chunks, where a sum in 16 bits would lose what each adds, or end at 65,504."""
    monkeypatch.setattr(training_speed, "CHUNK", 64 * 97)
    monkeypatch.setattr(training_speed, "_plain_loss", None)  # nothing makes it necessary
    states, projection = torch.randn(1, 20_000, 16), nn.Linear(16, 97, bias=False)
    labels = torch.randint(97, (1, 20_000))
    with torch.autocast("cpu", dtype):
        loss = training_speed.projected_cross_entropy(states, projection, labels, 0.1)
    narrow = nn.functional.linear(states.to(dtype), projection.weight.to(dtype)).float()
    expected = F.cross_entropy(narrow.flatten(0, 1), labels.flatten(), label_smoothing=0.1)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)
