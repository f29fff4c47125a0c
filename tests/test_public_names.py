"""What users build on: the public names, frozen. A change here is a change for the changelog."""

from __future__ import annotations

import inspect
from typing import get_origin

import pytest

import vdm_blocks

NAMES = """
    Adversary Ancestral Attend Attention AttentionCache AttentionPool AttentionPoolSpec AttributeScore
    AttributeTally AugmentationSweep Autoguidance Batch Bits BlurAugmentation BlurDownsample
    BlurUpsample BoundWeighting CLIPEncoder Cameras Cascade ChannelNorm ChannelNormSpec CheckpointInfo
    ClassifierFreeGuidance Concept ConditionAnnealing Conditioning ConditioningAugmentation
    ConsistencyDistiller Constant ConstantDecay ContinuousDecoder CosineSchedule Cost DDIM DPMSolverPP2M
    Decay Decoder Denoised Denoiser DenoiserWrapper DeviceSpeed DiffusersImageUNet DiffusersModel
    DiffusersVideoUNet DiffusionLoss DiscreteDecoder Discriminator DistillInfo DistilledGuidance
    DistilledStochastic Distiller DistributionMatching Draw DynamicThreshold EDM EDMChurn EDMHeun
    EDMPrediction EDM_MSE EMA EPS EPS_MSE EffLite0Features Emphasis ExactTrace FLOW FLOW_MSE
    FactorizedConv FactorizedSpec FeatureBank FeatureDiscriminator FeatureExtractor Film Fingerprint
    FolderClips FourierEmbedding FourierLogSNREmbedding FourierSpec FrameGroupNorm FrameInput
    FramePositions FreshNoise GUIDANCE_SCALE GaussianStats Grid GroupNormSpec GuidanceDirection
    GuidanceDistiller GuidanceMomentum Guide HeldOut Heun HutchinsonTrace I3DFeatures InceptionFeatures
    IndependentNoise IndependentTimes Inflated Inflation InterpolatedSchedule Interval InverseCosineSpec
    JoinedTextAttention JoinedTextSpec JointAttention JointSpec Judge Jumps KarrasSchedule KeyedNoise
    Ladder LangevinCorrector LearnedSchedule LearnedUncertainty Lesson LevelSpec LinearBetaSchedule
    LinearLogSNRSchedule LinearPrediction LogNormalLaw LogSNREmbedding LogitNormalLaw
    LowDiscrepancyTimes MagnitudeNorm MagnitudeNormSpec MeanPool MeanPoolSpec Method MinSNR
    MiniLMEncoder MixedNoise ModelDenoiser Momentum MomentumState MultiGuidance MultiscaleDiffusionLoss
    MultistepConsistencyDistiller Network NoiseSchedule NoiseSource OfLogSNR OpenCLIPEncoder Oscillating
    P2Weighting Passes PathSchedule PerFrameTimes Permanence Pointwise PowerDecay Prediction
    PredictionMSE Preset ProgressLine ProgressiveDistiller ProgressiveNoise ProjectedGuidance RMSNorm
    RMSNormSpec Raster ReconstructionGuidance RectifiedFlowSchedule RelativeBias Replacement
    RescaledGuidance ResidualBlock ResidualNetwork Restart Rotary Rung RungResult SCORE Sample
    ScalarEmbedding Scale ScaleAdapter ScaleRange Schedule ShiftedSchedule Sightings SigmoidSchedule
    SigmoidWeighting SinusoidSpec Snapshot SolidClips SolidImages SolidScene SolidTruth Source
    SpatialAttention SpatialAttentionSpec SpatialConv SpatialDownsample SpatialUpsample SpriteClips
    SpriteImages SpritePack SpriteScene Stage StaticThreshold StepDraw StepInfo StepResult StepRule
    Stream Streamed T5TextEncoder TemporalAttention TemporalAttentionSpec TemporalConv TemporalConvSpec
    TemporalDownsample TemporalUpsample TextAttention TextAttentionSpec TextEncoder TextFrameEncoder
    TextStates ThresholdPer TiledNetwork TimeLaw TimeSampler TimestepSchedule ToldGuidance Trace
    TrackError TrainingState TransNetFeatures TransformerSpec TruncatedSNR UNetSpec UniPC UniformLaw V
    V_MSE VariancePreserving VideoMAEFeatures VideoNoise VideoTransformer VideoUNet VideoWriter View
    WarmedDecay Weighting X0 X0_MSE ZeroTerminalSNRSchedule __version__ adjusted_ddim_step
    alpha_sigma_vp attend attend_by_products attend_flex attend_fused attend_xformers betas_of
    bits_per_dimension blank_frames blend_frames bootstrap_interval build_network channels_last
    check_prediction clip_score color_mask contact_sheet cost_of ddim_jumps ddim_step depth_order
    dequantize diffuse distill download_from_hub draw_normal draw_scene draw_solids dynamic_degree
    epipolar_residual estimate_flow expand_level feature_consistency file_hash fit_direction fit_video
    flicker flow_log_likelihood fold_frames fold_space frechet_by_count frechet_distance
    frechet_extrapolated from_bytes from_last fundamental_from_matches gaussian_distance grid_positions
    guidance_scale_from_paper halvings imagen imagen_video inflate inflate_unet initial karras_times
    kernel_distance kernel_subsets learn level_of_batch load_hub_folder load_network load_student
    load_unet logsnr_slope magnitude_cat magnitude_quantile magnitude_silu magnitude_sum match_points
    motion_degree motion_direction motion_smoothness nearest_color output_weight permanence pieces
    posterior psnr r_precision raise_space read_frames read_info read_pth read_scheduler read_video
    recompute_activations reconstruct render_solids render_sprites repeat_frames resize_video sample
    sampson_distance save_hub_folder save_network save_student save_tensors save_unet segment_jumps
    sight sinusoid skip_frames solid_truth sprite_truth ssim stochastic_jumps stream_attention
    stream_conv sweep_augmentation to_bytes to_last track_error trailing_times transition
    two_step_target unfold_frames unfold_space uniform_logsnr_times uniform_times unless_frozen
    upsample_bicubic upsample_space use_attend variational_bound vdm warp warping_error
    with_guidance_scale write_video
""".split()  # noqa: SIM905 - a list of strings would be longer than the rest of this file


def test_the_public_names_are_these() -> None:
    assert sorted(vdm_blocks.__all__) == sorted(NAMES)


@pytest.mark.parametrize("name", sorted(vdm_blocks.__all__))
def test_a_public_name_is_there_and_explains_itself(name: str) -> None:
    thing = getattr(vdm_blocks, name)
    if get_origin(thing) is None and (inspect.isclass(thing) or inspect.isfunction(thing)):
        about = thing.__doc__ or ""
        assert about.strip(), f"{name} has no docstring"
        assert not about.startswith(f"{name}("), f"{name} has just the docstring that dataclasses make up"


@pytest.mark.parametrize("name", sorted(vdm_blocks.__all__))
def test_a_public_class_documents_its_methods(name: str) -> None:
    thing = getattr(vdm_blocks, name)
    methods = vars(thing).items() if inspect.isclass(thing) else ()
    silent = [
        method
        for method, value in methods
        if not method.startswith("_") and inspect.isfunction(value) and not (value.__doc__ or "").strip()
    ]
    assert not silent, f"{name} has methods without a docstring: {silent}"
