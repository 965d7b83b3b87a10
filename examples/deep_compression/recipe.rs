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

/// What `--check` asks for.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// Test error of the baseline, in percent.
    pub(crate) baseline: f64,
    /// Points of test error the sparse and the slim network may cost.
    pub(crate) sparse: f64,
    pub(crate) slim: f64,
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
    /// Points of validation error that a sparser or narrower network may cost.
    pub(crate) allowance: f64,
    pub(crate) bounds: Bounds,
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
            Rung { density: [0.04125, 0.0917, 0.42], tighten: 20, settle: 15 },
            Rung { density: [0.02466, 0.0767, 0.37], tighten: 6, settle: 12 },
        ],
        bits: 4,
        group: 512,
        quantize_epochs: 6,
        widths: &[
            Width { inputs: Some(450), hidden: [100, 60] },
            Width { inputs: Some(400), hidden: [92, 55] },
            Width { inputs: Some(400), hidden: [68, 50] },
        ],
        slim_rounds: 4,
        allowance: 0.1,
        bounds: Bounds { baseline: 1.9, sparse: 0.1, slim: 0.2 },
    };

    pub(crate) const DIGITS: Self = Self {
        batch: 32,
        pretrain: 30,
        weight_decay: 0.3,
        l1: 1e-6,
        rungs: &[
            Rung { density: [0.078, 0.0467, 0.25], tighten: 50, settle: 40 },
            Rung { density: [0.0469, 0.0283, 0.2], tighten: 20, settle: 40 },
        ],
        bits: 4,
        group: 256,
        quantize_epochs: 25,
        widths: &[Width { inputs: None, hidden: [75, 45] }, Width { inputs: None, hidden: [50, 30] }],
        slim_rounds: 4,
        allowance: 0.1,
        // A test row is 0.22 points.
        bounds: Bounds { baseline: 5.0, sparse: 1.5, slim: 1.5 },
    };
}
