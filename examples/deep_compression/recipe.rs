//! Hyper-parameters of the two data sets.

/// One step of the ladder of sparsities.
#[derive(Clone, Copy)]
pub(crate) struct Rung {
    /// Share of each layer's weights that stays.
    pub(crate) density: [f64; 3],
    /// Epochs in which the masks tighten, and epochs of retraining after that.
    pub(crate) tighten: usize,
    pub(crate) settle: usize,
}

/// A smaller dense network.
#[derive(Clone, Copy)]
pub(crate) struct Width {
    /// Input pixels it reads; all if `None`.
    pub(crate) inputs: Option<usize>,
    pub(crate) hidden: [usize; 2],
}

#[derive(Clone, Copy)]
pub(crate) struct Recipe {
    pub(crate) batch: usize,
    pub(crate) pretrain: usize,
    pub(crate) weight_decay: f64,
    /// L1 penalty while pruning.
    pub(crate) l1: f32,
    /// From dense to sparse.
    pub(crate) rungs: &'static [Rung],
    pub(crate) bits: u8,
    /// Surviving weights that share a range.
    pub(crate) group: usize,
    pub(crate) quantize_epochs: usize,
    /// From wide to narrow.
    pub(crate) widths: &'static [Width],
    pub(crate) slim_rounds: usize,
    /// Points of validation error that pruning and slimming may cost.
    pub(crate) allowance: [f64; 2],
}

impl Recipe {
    /// Epochs after pretraining, the same for the baseline and the compressed networks.
    pub(crate) fn branch_epochs(&self) -> usize {
        self.rungs.iter().map(|rung| rung.tighten + rung.settle).sum::<usize>() + self.quantize_epochs
    }

    pub(crate) const MNIST: Self = Self {
        batch: 100,
        pretrain: 10,
        weight_decay: 0.3,
        l1: 1e-6,
        rungs: &[
            Rung { density: [0.0659, 0.1334, 0.55], tighten: 16, settle: 8 },
            Rung { density: [0.04125, 0.0917, 0.42], tighten: 4, settle: 8 },
            Rung { density: [0.02466, 0.0767, 0.37], tighten: 4, settle: 8 },
        ],
        bits: 4,
        group: 512,
        quantize_epochs: 6,
        widths: &[Width { inputs: Some(400), hidden: [110, 60] }, Width { inputs: Some(400), hidden: [68, 50] }],
        slim_rounds: 8,
        allowance: [0.1, 0.2],
    };

    pub(crate) const DIGITS: Self = Self {
        batch: 32,
        pretrain: 40,
        weight_decay: 0.3,
        l1: 1e-6,
        rungs: &[
            Rung { density: [0.08, 0.06, 0.4], tighten: 60, settle: 30 },
            Rung { density: [0.05, 0.04, 0.3], tighten: 16, settle: 30 },
            Rung { density: [0.03, 0.025, 0.25], tighten: 16, settle: 30 },
        ],
        bits: 4,
        group: 512,
        quantize_epochs: 30,
        widths: &[
            Width { inputs: None, hidden: [64, 60] },
            Width { inputs: None, hidden: [50, 30] },
            Width { inputs: Some(48), hidden: [40, 20] },
        ],
        slim_rounds: 8,
        allowance: [0.1, 0.2],
    };
}
