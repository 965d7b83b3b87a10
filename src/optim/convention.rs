//! Whose conventions an algorithm follows.

/// The library whose formula and defaults an algorithm follows, where they differ: where `eps` stands, what is
/// corrected for bias, whether the rate is a part of the momentum. Each optimizer's docs say what changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum Convention {
    /// `torch.optim`.
    #[default]
    PyTorch,
    /// Keras 3 and TensorFlow.
    Keras,
    /// optax.
    Optax,
    /// The operators of `ai.onnx.preview.training`.
    Onnx,
}
