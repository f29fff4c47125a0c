"""Distribution matching on Gaussians, whose scores are all known."""

from __future__ import annotations

import pytest
import torch
from exact import ExactDenoiser, Mixture, mixture
from torch import Tensor, nn

from vdm_blocks.denoisers.wrapper import with_x0
from vdm_blocks.diffusion import CosineSchedule, KarrasSchedule, KeyedNoise
from vdm_blocks.distillation import Adversary, DistributionMatching, FeatureDiscriminator, FreshNoise
from vdm_blocks.sampling import sample, uniform_times
from vdm_blocks.training import DiffusionLoss
from vdm_blocks.types import Conditioning, Denoised, Schedule

COSINE = CosineSchedule()
NOTHING = Conditioning()
SHAPE = (1, 1, 1, 1)
LIKE = torch.zeros(32, *SHAPE, dtype=torch.float64)
KEYED = KeyedNoise(seeds=tuple(range(32)), stage="a")


def normal(mean: float, std: float) -> Mixture:
    one = torch.ones(1).double()
    return Mixture(
        one, torch.full((1, *SHAPE), mean).double(), (std**2 * one).view(1, 1, 1), torch.zeros(1).long()
    )


class Affine(nn.Module):
    """x0 = std z + mean: from noise, a normal distribution."""

    def __init__(self, mean: float, std: float, schedule: Schedule = COSINE) -> None:
        super().__init__()
        self.schedule = schedule
        self.mean, self.std = (nn.Parameter(torch.tensor(x, dtype=torch.float64)) for x in (mean, std))
        self.asked: list[float] = []

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
        self.asked.append(float(t.max()))
        _, sigma = self.schedule.alpha_sigma(t)
        return with_x0(self.schedule, z_t, t, self.std * z_t / sigma.view(-1, 1, 1, 1, 1) + self.mean)


class Follows:
    """A critic that knows the student's distribution at every moment."""

    schedule = COSINE

    def __init__(self, student: Affine) -> None:
        self.student = [student]

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        mean, std = float(self.student[0].mean.detach()), float(self.student[0].std.detach())
        return ExactDenoiser(normal(mean, std), COSINE)(z_t, t, cond)


DATA = normal(0.4, 0.5)
TEACHER = ExactDenoiser(DATA, COSINE)


def test_a_student_that_has_the_distribution_is_at_rest() -> None:
    student = Affine(0.4, 0.5)
    DistributionMatching(TEACHER, student, Follows(student))(LIKE, NOTHING, generator=KEYED).mean().backward()
    assert student.mean.grad is not None
    assert student.std.grad is not None
    assert abs(float(student.mean.grad)) < 1e-9
    assert abs(float(student.std.grad)) < 1e-9


def test_the_gradient_is_the_difference_of_the_scores() -> None:
    """d loss / dx = (x0_critic - x0_teacher) / mean |x - x0_teacher| / d, carried to the weights by dx."""
    student = Affine(-0.3, 0.9)
    method = DistributionMatching(TEACHER, student, Follows(student))
    method(LIKE, NOTHING, generator=KEYED).sum().backward()
    x = method.generate(LIKE, NOTHING, generator=KEYED).detach()
    t = method._levels(LIKE, KEYED)
    z_t = method._noised(x, t, "distillation/noise", KEYED)
    real, fake = TEACHER(z_t, t, NOTHING).x0, Follows(student)(z_t, t, NOTHING).x0
    direction = (fake - real) / (x - real).abs()
    assert student.mean.grad is not None
    assert student.std.grad is not None
    torch.testing.assert_close(student.mean.grad, direction.sum())
    torch.testing.assert_close(student.std.grad, (direction * (x + 0.3) / 0.9).sum())


def test_following_it_leads_to_the_data() -> None:
    student = Affine(-0.6, 1.2)
    method = DistributionMatching(TEACHER, student, Follows(student))
    optimizer = torch.optim.Adam(student.parameters(), lr=0.04)
    for step in range(160):
        optimizer.param_groups[0]["lr"] = 0.04 * (1 - step / 160)
        method(LIKE, NOTHING, generator=KEYED.at(f"{step}")).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(student.mean.detach()) == pytest.approx(0.4, abs=0.05)
    assert float(student.std.detach()) == pytest.approx(0.5, abs=0.05)


def test_the_critic_learns_to_denoise_the_student_alone() -> None:
    student, critic = Affine(-0.3, 0.9), Affine(0.0, 0.1)
    method = DistributionMatching(TEACHER, student, critic)
    loss = method.critic_loss(LIKE, NOTHING, generator=KEYED)
    x = method.generate(LIKE, NOTHING, generator=KEYED).detach()
    wanted = DiffusionLoss()(critic, x, method._levels(LIKE, KEYED), NOTHING, generator=KEYED)
    torch.testing.assert_close(loss, wanted)
    loss.mean().backward()
    assert critic.mean.grad is not None
    assert student.mean.grad is None


def test_several_steps_are_trained_on_what_the_student_itself_makes() -> None:
    student = Affine(0.4, 0.5)
    method = DistributionMatching(TEACHER, student, Follows(student), steps=4)
    reached = set()
    for i in range(24):
        student.asked.clear()
        method.generate(LIKE, NOTHING, generator=KEYED.at(f"{i}"))
        assert student.asked == [1.0, 0.75, 0.5, 0.25][: len(student.asked)]
        reached.add(len(student.asked))
    assert reached == {1, 2, 3, 4}


def test_its_own_videos_are_those_of_the_sampler() -> None:
    """The same chain as `FreshNoise`: the mean and the spread of what comes out at the last step agree."""
    student = Affine(0.4, 0.5)
    like = torch.zeros(4000, *SHAPE, dtype=torch.float64)
    torch.manual_seed(0)
    whole = sample(student, FreshNoise(), uniform_times(2), torch.randn_like(like), NOTHING).detach()
    method = DistributionMatching(TEACHER, student, Follows(student), steps=2)
    while True:
        student.asked.clear()
        own = method.generate(like, NOTHING).detach()
        if len(student.asked) == 2:
            break
    error = float(whole.std()) / 4000**0.5
    assert float((own.mean() - whole.mean()).abs()) < 5 * error
    assert float((own.std() - whole.std()).abs()) < 5 * error


class Logit:
    """log p(z_t | data) - log p(z_t | student), the best discriminator there is, plus a bias."""

    def __init__(self, other: Mixture) -> None:
        self.other, self.bias = other, torch.zeros((), dtype=torch.float64, requires_grad=True)

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:  # noqa: ARG002
        levels = COSINE.alpha_sigma(t)
        return DATA.log_density(z_t, *levels) - self.other.log_density(z_t, *levels) + self.bias


def test_the_best_discriminator_is_at_rest() -> None:
    student = Affine(-0.3, 0.9)
    judge = Logit(normal(-0.3, 0.9))
    method = DistributionMatching(
        TEACHER, student, Follows(student), adversary=Adversary(discriminator=judge)
    )
    count = 4000
    x0 = DATA.sample(count, torch.Generator().manual_seed(0))
    keyed = KeyedNoise(seeds=tuple(range(count)), stage="d")

    def slope(bias: float) -> Tensor:
        judge.bias.data.fill_(bias)
        (g,) = torch.autograd.grad(method.discriminator_loss(x0, NOTHING, generator=keyed).mean(), judge.bias)
        return g

    error = 2**0.5 / count**0.5  # each of the two terms has a slope in [-1, 1]
    assert abs(float(slope(0.0))) < 3 * error
    assert float(slope(0.5)) > 3 * error
    assert float(slope(-0.5)) < -3 * error
    assert student.mean.grad is None


def test_the_gan_term_alone_moves_the_student_towards_the_data() -> None:
    student = Affine(-0.3, 0.5)
    at_rest = Follows(student)  # teacher and critic agree: what is left is the adversary
    judge = Logit(normal(-0.3, 0.5))
    adversary = Adversary(discriminator=judge, weight=1.0)
    method = DistributionMatching(at_rest, student, Follows(student), adversary=adversary)
    method(LIKE, NOTHING, generator=KEYED).mean().backward()
    assert student.mean.grad is not None
    assert float(student.mean.grad) < -0.01
    with_none = DistributionMatching(at_rest, student, Follows(student))
    student.mean.grad = None
    with_none(LIKE, NOTHING, generator=KEYED).mean().backward()
    assert abs(float(student.mean.grad)) < 1e-9  # type: ignore[arg-type]


def test_the_students_turn_teaches_it_what_it_would_and_the_discriminator_nothing() -> None:
    """One optimizer may hold both: the discriminator would learn to be wrong."""
    student = Affine(-0.3, 0.5)
    judge = Logit(normal(-0.3, 0.5))
    judge.bias.data.fill_(0.7)
    adversary = Adversary(discriminator=judge, weight=0.2)
    at_rest = Follows(student)
    method = DistributionMatching(at_rest, student, Follows(student), adversary=adversary)
    x = method.generate(LIKE, NOTHING, generator=KEYED)
    t = method._levels(LIKE, KEYED)
    z_t = method._noised(x, t, "distillation/noise", KEYED)
    plain = 0.2 * torch.nn.functional.softplus(-judge(z_t, t, NOTHING))
    torch.testing.assert_close(adversary.student_loss(z_t, t, NOTHING), plain)
    wanted = torch.autograd.grad(plain.sum(), [student.mean, judge.bias])
    assert abs(float(wanted[1])) > 0.01
    method(LIKE, NOTHING, generator=KEYED).sum().backward()
    assert judge.bias.grad is None
    assert student.mean.grad is not None
    torch.testing.assert_close(student.mean.grad, wanted[0])


class Widened(nn.Module):
    """A critic whose features are what it is given, and its square."""

    schedule = COSINE

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Identity()

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
        wide: Tensor = self.features(torch.cat([z_t, z_t.square()], dim=1))
        return Denoised(wide[:, :1], wide[:, :1])


class Several(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Odd(Widened):
    """A critic with a submodule that is not called, and one that puts out two things."""

    def __init__(self) -> None:
        super().__init__()
        self.unused, self.several = nn.Identity(), Several()

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
        return Denoised(*self.several(z_t))


def test_the_head_lies_where_the_critic_lies() -> None:
    critic = Widened()
    critic.scale = nn.Parameter(torch.ones(1, device="meta"))
    judge = FeatureDiscriminator(critic, at="features", channels=2)
    assert {p.device.type for p in judge.head.parameters()} == {"meta"}


def test_the_students_videos_may_be_made_once_for_both_losses_of_the_critic() -> None:
    student, critic = Affine(-0.3, 0.9), Affine(0.0, 0.1)
    judge = Logit(normal(-0.3, 0.9))
    method = DistributionMatching(TEACHER, student, critic, 2, adversary=Adversary(discriminator=judge))
    made = method.generate(LIKE, NOTHING, generator=KEYED)
    asked = len(student.asked)
    for loss in (method.critic_loss, method.discriminator_loss):
        torch.testing.assert_close(
            loss(LIKE, NOTHING, generator=KEYED, made=made), loss(LIKE, NOTHING, generator=KEYED)
        )
    assert len(student.asked) == 3 * asked
    method.discriminator_loss(LIKE, NOTHING, generator=KEYED, made=made).sum().backward()
    assert student.mean.grad is None


def test_a_head_on_features_learns_to_tell_data_from_the_student() -> None:
    torch.manual_seed(0)
    student = Affine(-0.9, 0.3)
    judge = FeatureDiscriminator(Widened(), at="features", channels=2).double()
    method = DistributionMatching(
        TEACHER, student, Follows(student), adversary=Adversary(discriminator=judge)
    )
    x0, fake = (
        DATA.sample(256, torch.Generator().manual_seed(0)),
        -0.9 + 0.3 * torch.randn(256, *SHAPE).double(),
    )
    late = torch.full((256,), 0.05, dtype=torch.float64)
    assert float(judge(x0, late, NOTHING).detach().abs().max()) == 0
    optimizer = torch.optim.Adam(judge.parameters(), lr=1e-2)
    for update in range(60):
        optimizer.zero_grad()
        keyed = KeyedNoise(seeds=tuple(range(256)), stage=f"learn/{update}")
        method.discriminator_loss(x0, NOTHING, generator=keyed).mean().backward()
        optimizer.step()
    real, made = judge(x0, late, NOTHING), judge(fake, late, NOTHING)
    assert float((real[:, None] > made[None]).double().mean()) > 0.8  # of pairs, 0.5 by chance


def test_features_with_frames_in_the_batch_are_those_of_the_video() -> None:
    class Flat(Widened):
        def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
            self.features(z_t.transpose(1, 2).flatten(0, 1))
            return Denoised(z_t, z_t)

    class Whole(Flat):
        def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
            self.features(z_t)
            return Denoised(z_t, z_t)

    flat, whole = (FeatureDiscriminator(c, at="features", channels=3) for c in (Flat(), Whole()))
    last = whole.head[2]
    assert isinstance(last, nn.Linear)
    nn.init.normal_(last.weight)
    flat.head.load_state_dict(whole.head.state_dict())
    z, t = torch.randn(2, 3, 4, 5, 6), torch.tensor([0.1, 0.9])
    torch.testing.assert_close(flat(z, t, NOTHING), whole(z, t, NOTHING))
    assert flat(z, t, NOTHING).shape == (2,)


def test_a_variance_exploding_student_starts_from_its_own_noise() -> None:
    schedule = KarrasSchedule()
    student = Affine(0.4, 0.5, schedule)
    exact = ExactDenoiser(mixture(SHAPE), schedule)
    method = DistributionMatching(exact, student, ExactDenoiser(mixture(SHAPE), schedule))
    x = method.generate(torch.zeros(4000, *SHAPE).double(), NOTHING).detach()
    assert float(x.std()) == pytest.approx(
        0.5, rel=0.06
    )  # the noise has sigma 80, and the student divides by it


def test_what_is_wrong_is_said() -> None:
    student = Affine(0.0, 1.0)
    with pytest.raises(ValueError, match="has no adversary"):
        DistributionMatching(TEACHER, student, Follows(student)).discriminator_loss(LIKE, NOTHING)
    with pytest.raises(ValueError, match="run from 1 to 0"):
        DistributionMatching(TEACHER, student, Follows(student), torch.tensor([0.9, 0.0]))
    with pytest.raises(ValueError, match="share weights"):
        DistributionMatching(TEACHER, student, student)
    with pytest.raises(ValueError, match=r"no submodule 'middle'.*features"):
        FeatureDiscriminator(Widened(), at="middle", channels=2)
    with pytest.raises(ValueError, match="it is a Module"):
        FeatureDiscriminator(TEACHER, at="features", channels=2)
    for name, said in (("unused", "NoneType"), ("several", "tuple")):
        with pytest.raises(ValueError, match=f"{name} put out {said}, no tensor of features"):
            FeatureDiscriminator(Odd(), at=name, channels=2)(LIKE, torch.zeros(len(LIKE)), NOTHING)
    with pytest.raises(ValueError, match="its second channels=5"):
        FeatureDiscriminator(Widened(), at="features", channels=5)(LIKE, torch.zeros(len(LIKE)), NOTHING)
    with pytest.raises(ValueError, match="weight=0"):
        Adversary(discriminator=Logit(DATA), weight=0)
