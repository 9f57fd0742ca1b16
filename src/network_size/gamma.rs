//! The regularised lower incomplete gamma function and its inverse, with the same result on every platform.

/// Above this x, P(a, x) is 1 to double precision, for `a` from 1 to 1,024.
pub(super) fn saturation(a: f64) -> f64 {
    a + 10.0 * libm::sqrt(a) + 100.0
}

/// The regularised lower incomplete gamma function P(a, x), for `a` from 1 to 1,024, by its series: all terms are
/// positive, so there is no cancellation.
pub(crate) fn gamma_p(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x > saturation(a) {
        return 1.0;
    }
    let (mut term, mut sum, mut n) = (1.0, 1.0, a);
    while term > sum * f64::EPSILON {
        n += 1.0;
        term *= x / n;
        sum += term;
    }
    (sum * libm::exp(a * libm::log(x) - x - libm::lgamma(a + 1.0))).min(1.0)
}

/// The x at which P(a, x) is p, by bisection down to the last bit.
pub(super) fn inverse_gamma_p(a: f64, p: f64) -> f64 {
    let (mut low, mut high) = (0.0, saturation(a));
    for _ in 0..64 {
        let middle = f64::midpoint(low, high);
        *(if gamma_p(a, middle) < p { &mut low } else { &mut high }) = middle;
    }
    high
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// P(a, x) by Simpson's rule, for `a` a whole or half number: P is an integral, and 1/P⁻¹ is not used.
    pub(in crate::network_size) fn integrated(a: f64, x: f64) -> f64 {
        // ln Γ(a), from Γ(1) = 1 or Γ(1/2) = √π up.
        let half = a.fract() != 0.0;
        let mut log_gamma = if half { std::f64::consts::PI.sqrt().ln() } else { 0.0 };
        let mut at = if half { 0.5 } else { 1.0 };
        while at < a {
            log_gamma += f64::ln(at);
            at += 1.0;
        }
        let at_zero = if a > 1.0 { 0.0 } else { 1.0 };
        let density = |t: f64| ((a - 1.0) * t.ln() - t - log_gamma).exp();
        let steps = 20_000_i32;
        let width = x / f64::from(steps);
        let inner = (1..steps).map(|i| f64::from(2 + i % 2 * 2) * density(width * f64::from(i)));
        (inner.sum::<f64>() + at_zero + density(x)) * width / 3.0
    }

    #[test]
    fn the_gamma_function_is_what_the_integral_says() {
        for a in [1.0, 1.5, 2.0, 11.0, 20.0, 20.5, 300.0, 1_024.0] {
            for part in [0.3, 0.7, 0.95, 1.0, 1.1, 1.5, 3.0, 20.0] {
                let x: f64 = a * part;
                let (found, expected) = (gamma_p(a, x), integrated(a, x.min(a + 40.0 * a.sqrt())));
                assert!((found - expected).abs() < 1e-4, "P({a}, {x}) is {expected}, not {found}");
            }
            assert_eq!((gamma_p(a, 0.0), gamma_p(a, -1.0), gamma_p(a, f64::INFINITY)), (0.0, 0.0, 1.0));
            assert!(gamma_p(a, saturation(a)) > 1.0 - 1e-12);
        }
    }
}
