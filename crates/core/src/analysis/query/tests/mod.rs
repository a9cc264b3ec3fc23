mod counting;
mod render;

use countersign_api::counts::Counts;
use countersign_api::{Check, Duration, Preset};
use promql_parser::parser::Expr;
use promql_parser::util::visitor::{ExprVisitor, walk_expr};
use proptest::prelude::*;

use crate::analysis::count::{ArmAnswer, NotCounted, count};
use crate::analysis::query::form::{Arm, Field, Form, Query};
use crate::analysis::query::placeholder::{parse, parts};
use crate::analysis::query::problem::{LONGEST_QUERY, Problem, QueryError};
use crate::analysis::query::{Counting, render};
use crate::analysis::series::{FirstIncrement, Series, Span, increase};
use crate::observation::windows::Uncounted;

const WINDOW: Duration = Duration::seconds(15);
const ARM: Arm<'_> = Arm {
    namespace: "shop",
    service: Some("cart-canary"),
    rollout: "cart",
    revision: "abc12",
};

fn own(errors: &str, total: &str) -> Check {
    Check {
        name: "own".into(),
        errors: Some(errors.into()),
        total: Some(total.into()),
        ..Check::default()
    }
}
