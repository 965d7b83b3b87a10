//! The float parameters of a module, by name.

use burn_core::{
    module::{Module, ModuleVisitor, Param},
    tensor::Tensor,
};

/// Where a visitor or a mapper is: a name is the path of fields and indices, joined by dots, as in burn's records.
#[derive(Debug, Default)]
pub(super) struct Path(Vec<String>);

impl Path {
    pub(super) fn enter(&mut self, name: &str) {
        self.0.push(name.into());
    }

    pub(super) fn exit(&mut self) {
        self.0.pop();
    }

    pub(super) fn name(&self) -> String {
        self.0.join(".")
    }
}

/// `enter_module` and `exit_module` of a visitor or a mapper with a field `path`.
macro_rules! follow_path {
    () => {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.enter(name);
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
        }
    };
}
pub(super) use follow_path;

#[derive(Default)]
struct Names {
    path: Path,
    found: Vec<(String, Vec<usize>)>,
}

impl ModuleVisitor for Names {
    follow_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push((self.path.name(), param.lazy_shape().as_slice().to_vec()));
    }
}

/// Names and shapes of a module's float parameters, in the order of its fields. Parameters yet to be initialized stay so.
///
/// ```
/// use burn_core::{self as burn, module::{Module, Param}, tensor::{Device, Tensor}};
/// #[derive(Module, Debug)]
/// struct Layer { weight: Param<Tensor<2>>, bias: Option<Param<Tensor<1>>> }
/// let device = Device::flex();
/// let layer = Layer { weight: Param::from_tensor(Tensor::ones([3, 2], &device)), bias: None };
/// assert_eq!(lapidary::backend::burn::names(&layer), [("weight".to_string(), vec![3, 2])]);
/// ```
pub fn names<M: Module>(module: &M) -> Vec<(String, Vec<usize>)> {
    let mut names = Names::default();
    module.visit(&mut names);
    names.found
}
