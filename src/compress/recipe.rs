//! What is to be done to a model.

#[cfg(feature = "rten")]
use super::slimming::Slimming;
use super::{activations::Activations, budget::Budget, pruning::Pruning};
use crate::{
    config::config,
    error::{Error, Result},
};

/// How quantized weights are written in an ONNX model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Form {
    /// 8 bits as [`Dequantize`](Self::Dequantize). Fewer bits as [`MatMulNBits`](Self::MatMulNBits) where a weight is one of
    /// `MatMul`; else as `Dequantize`, or in 8 bits where the model cannot have the newer operators for it. The report says which.
    #[default]
    Auto,
    /// Integers and a `DequantizeLinear` before what reads them: any weight, any runtime. Needs version 13 of ONNX's operators, 21 for 4
    /// bits and for groups, 25 for 2 bits.
    Dequantize,
    /// ONNX Runtime's operator `MatMulNBits`, which multiplies by the codes as they are: `MatMul` with a matrix of weights.
    #[cfg_attr(feature = "serde", serde(rename = "matmul_nbits"))]
    MatMulNBits,
}

/// What is to be done to a model. A new recipe leaves it as it is.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `bits` | none: not quantized | 2, 4, 8 | bits of a code; within a budget, the fewest |
/// | `group_size` | none: a scale an output channel | 16 and more; a power of two for `MatMulNBits` | weights that share a scale |
/// | `symmetric` | no | | no zero points |
/// | `form` | [`Form::Auto`] | | how an ONNX model has them |
/// | `pruning` | none | [`Pruning`] | weights that become zero, and stay zero as codes |
/// | `budget` | none | [`Budget`] | the bits of each weight, or that it stays, are chosen to keep within |
/// | `histograms` | no | | the report has those of each tensor |
/// | `activations` | none: floating-point numbers | with 8 bits, without groups | how an ONNX model multiplies by integers |
/// | `keep` | none | parts of names | tensors that stay as they are; slimming cuts them all the same |
/// | `only` | all | parts of names, or operators | tensors that are changed at all |
/// | `min_elements` | 1,024 | any | smaller tensors stay |
/// | `slimming` | none | `Slimming` | channels and blocks of an ONNX model that leave before it is quantized (feature `rten`) |
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Recipe {
    pub(super) bits: Option<u8>,
    pub(super) group: Option<usize>,
    pub(super) symmetric: bool,
    pub(super) form: Form,
    pub(super) pruning: Option<Pruning>,
    pub(super) budget: Option<Budget>,
    pub(super) histograms: bool,
    pub(super) activations: Option<Activations>,
    keep: Vec<String>,
    only: Vec<String>,
    min_elements: usize,
    #[cfg(feature = "rten")]
    pub(super) slimming: Option<Slimming>,
}

impl Default for Recipe {
    fn default() -> Self {
        Self::new()
    }
}

config! {
    Recipe() => Self::new(),
    bits: Option<u8> => |it, bits| match bits {
        Some(bits) => it.with_bits(bits),
        None => Ok(it),
    },
    group_size: Option<usize> = |it| it.group => |it, size| match size {
        Some(size) => it.with_group(size),
        None => Ok(it),
    },
    symmetric: bool => |it, _| it.symmetric(),
    form: Form => Self::with_form,
    pruning: Option<Pruning> => |it, pruning| Self { pruning, ..it },
    budget: Option<Budget> => |it, budget| match budget {
        Some(budget) => it.with_budget(budget),
        None => Ok(it),
    },
    histograms: bool => |it, _| it.with_histograms(),
    activations: Option<Activations> => |it, activations| Self { activations, ..it },
    keep: Vec<String> => Self::keep,
    only: Vec<String> => Self::only,
    min_elements: usize => Self::with_min_elements,
    #[cfg(feature = "rten")]
    slimming: Option<Slimming> => |it, slimming| Self { slimming, ..it },
    #[cfg(not(feature = "rten"))]
    slimming: Option<crate::config::Absent> = |_| None::<crate::config::Absent> => |_, _| {
        Err(Error::argument("slimming", "asked for", "none, without the feature `rten`"))
    },
}

impl Recipe {
    /// All stays as it is.
    pub fn new() -> Self {
        let (keep, only) = (Vec::new(), Vec::new());
        Self {
            bits: None,
            group: None,
            symmetric: false,
            form: Form::Auto,
            pruning: None,
            budget: None,
            histograms: false,
            activations: None,
            keep,
            only,
            min_elements: 1024,
            #[cfg(feature = "rten")]
            slimming: None,
        }
    }

    /// Codes of so many bits, with a scale and a zero point for each output channel.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for other bits than 2, 4 and 8.
    pub fn with_bits(self, bits: u8) -> Result<Self> {
        if !matches!(bits, 2 | 4 | 8) {
            return Err(Error::argument("bits", bits, "2, 4 or 8"));
        }
        Ok(Self { bits: Some(bits), ..self })
    }

    /// A scale and a zero point for each `size` weights of a sum.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for less than 16.
    pub fn with_group(self, size: usize) -> Result<Self> {
        if size < 16 {
            return Err(Error::argument("group size", size, "at least 16"));
        }
        Ok(Self { group: Some(size), ..self })
    }

    /// Without zero points.
    pub fn symmetric(self) -> Self {
        Self { symmetric: true, ..self }
    }

    /// Channels and blocks of an ONNX model leave, first of all. Other files have no graph to see them by: they are as they were.
    #[cfg(feature = "rten")]
    pub fn with_slimming(self, slimming: Slimming) -> Self {
        Self { slimming: Some(slimming), ..self }
    }

    /// How an ONNX model has quantized weights.
    pub fn with_form(self, form: Form) -> Self {
        Self { form, ..self }
    }

    /// Some weights become zero. Those of a tensor that is quantized stay zero, exactly: 0 is a level of all codes; of a GGUF file only
    /// types with such a level are written, `Q4_0` and `Q8_0`. What is quantized are the weights that are left.
    pub fn with_pruning(self, pruning: Pruning) -> Self {
        Self { pruning: Some(pruning), ..self }
    }

    /// The ways to keep each weight are chosen so that all together keep within a budget, at the least cost: the bits, of those from
    /// [`with_bits`](Self::with_bits) up (all, without), or that it stays as it is. The errors of all ways are measured first, which reads
    /// the weights once more for each.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for an error that is negative or not finite.
    pub fn with_budget(self, budget: Budget) -> Result<Self> {
        Ok(Self { budget: Some(budget.check()?), ..self })
    }

    /// The report has a histogram of each tensor that changes, before and after. The weights are read once more, for their range.
    pub fn with_histograms(self) -> Self {
        Self { histograms: true, ..self }
    }

    /// An ONNX model multiplies by integers: its activations become codes too. With weights of 8 bits and a scale for each output channel.
    ///
    /// ```
    /// use lapidary::compress::{Activations, Recipe};
    /// let recipe = Recipe::new().with_bits(8)?.with_activations(Activations::Dynamic);
    /// # #[cfg(feature = "rten")] {
    /// use lapidary::compress::{Feed, Inputs, RangeMethod};
    /// let sample = vec![("x".to_string(), Feed::f32(&[1, 4], vec![0.0, 0.5, 1.0, 2.0])?)];
    /// let fixed = Activations::Static(Inputs::given([sample]), RangeMethod::Mse);
    /// let recipe = recipe.with_activations(fixed);
    /// # }
    /// # Ok::<(), lapidary::Error>(())
    /// ```
    pub fn with_activations(self, activations: Activations) -> Self {
        Self { activations: Some(activations), ..self }
    }

    /// Tensors with one of these parts in their names stay as they are.
    pub fn keep<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.keep.extend(names.into_iter().map(Into::into));
        self
    }

    /// Only tensors with one of these parts in their names, or of these operators (`Conv`), are changed.
    pub fn only<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.only.extend(names.into_iter().map(Into::into));
        self
    }

    /// Tensors of fewer elements stay as they are.
    pub fn with_min_elements(self, count: usize) -> Self {
        Self { min_elements: count, ..self }
    }

    /// The bits a weight may have.
    pub(super) fn bit_choices(&self) -> Vec<u8> {
        match self.budget {
            None => Vec::from_iter(self.bits),
            Some(_) => [2, 4, 8].into_iter().filter(|&bits| bits >= self.bits.unwrap_or(2)).collect(),
        }
    }

    /// What is put down of the numbers of a tensor.
    pub(super) fn looks(&self) -> (bool, bool) {
        (self.pruning.is_some() || self.histograms, self.histograms)
    }

    /// An error where activations, or slimming, are asked for that this file cannot have: `graph` says whether it is one that runs.
    pub(super) fn check_graph(&self, graph: bool) -> Result<()> {
        let refused = |found: &str, needed| Err(Error::argument("quantization of activations", found, needed));
        #[cfg(feature = "rten")]
        if self.slimming.is_some() && !graph {
            return Err(Error::argument("slimming", "asked for", "none, for a file of tensors alone"));
        }
        match self {
            Self { activations: None, .. } => Ok(()),
            _ if !graph => refused("asked for", "none, for a file of tensors alone"),
            Self { bits, .. } if *bits != Some(8) => refused("with weights of other bits", "with weights of 8 bits"),
            Self { group: Some(_), .. } => refused("with groups of weights", "with a scale for each output channel"),
            Self { budget: Some(_), .. } => refused("within a budget", "without one"),
            #[cfg(feature = "rten")]
            Self { pruning: Some(_), activations: Some(Activations::Static(..)), .. } => {
                refused("with pruning, and found now", "for a model that is pruned already: zeros stay zero")
            }
            Self { form: Form::MatMulNBits, .. } => refused("with MatMulNBits", "in another form"),
            _ => Ok(()),
        }
    }

    /// Whether a tensor of this name is to stay.
    #[cfg(feature = "rten")]
    pub(super) fn keeps(&self, name: &str) -> bool {
        self.keep.iter().any(|part| name.contains(part.as_str()))
    }

    /// Why a tensor stays as it is, where the recipe says so.
    pub(super) fn kept(&self, name: &str, operators: &[&str], elements: usize) -> Option<String> {
        let part = |part: &&String| name.contains(part.as_str());
        if self.bits.is_none() && self.pruning.is_none() && self.budget.is_none() {
            return Some("not to be quantized".into());
        }
        if elements == 0 {
            return Some("empty".into());
        }
        if elements < self.min_elements {
            return Some(format!("of fewer than {} elements", self.min_elements));
        }
        if let Some(part) = self.keep.iter().find(part) {
            return Some(format!("kept: {part:?}"));
        }
        let chosen = |part: &String| name.contains(part.as_str()) || operators.contains(&part.as_str());
        let left_out = !self.only.is_empty() && !self.only.iter().any(chosen);
        left_out.then(|| "not among those to be quantized".into())
    }
}
