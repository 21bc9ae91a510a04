// One layer of BALI in JavaScript, without a library: statistics → posterior → predictive, and what belongs to them.
//
//   node examples/ports/node_port.mjs "$(balinp vectors where)" candidate.json
//   balinp vectors verify candidate.json --only "$(node examples/ports/node_port.mjs --operations)"
//
// A matrix is an array of rows. Functions take the inputs of a vector file by name and give its outputs; what must be
// refused throws. Numbers are float64, the only ones that JavaScript has.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const transpose = (a) => a[0].map((_, j) => a.map((row) => row[j]));
const sum = (values) => values.reduce((total, v) => total + v, 0);
const dot = (a, b) => sum(a.map((v, i) => v * b[i]));
const map2 = (f, a, b) => a.map((row, i) => row.map((v, j) => f(v, b[i][j])));
const add = (a, b) => map2((x, y) => x + y, a, b);
const subtract = (a, b) => map2((x, y) => x - y, a, b);
const scale = (factor, a) => a.map((row) => row.map((v) => factor * v));
const identity = (n) => Array.from({ length: n }, (_, i) => Array.from({ length: n }, (_, j) => Number(i === j)));
const zeros = (n, k) => Array.from({ length: n }, () => Array(k).fill(0));
const trace = (a) => sum(a.map((row, i) => row[i]));

function multiply(a, b) {
  if (a[0].length !== b.length) throw new Error(`shapes do not fit: ${a[0].length} columns, ${b.length} rows`);
  const columns = transpose(b);
  return a.map((row) => columns.map((column) => dot(row, column)));
}

/** aᵀb by rows, so that it is right without any: (D, K). */
function gram(a, b, d, k) {
  const out = zeros(d, k);
  a.forEach((row, n) => row.forEach((v, i) => b[n].forEach((u, j) => (out[i][j] += v * u))));
  return out;
}

/** Lower L with L Lᵀ = a; throws if there is none. */
function cholesky(a) {
  const L = zeros(a.length, a.length);
  for (let i = 0; i < a.length; i++) {
    for (let j = 0; j <= i; j++) {
      const rest = a[i][j] - sum(L[j].slice(0, j).map((v, k) => v * L[i][k]));
      if (i === j && !(rest > 0 && Number.isFinite(rest))) throw new Error(`not positive definite: pivot ${i}`);
      L[i][j] = i === j ? Math.sqrt(rest) : rest / L[j][j];
    }
  }
  return L;
}

/** L⁻¹ b. */
function forwardSolve(L, b) {
  const x = [];
  L.forEach((row, i) => x.push(b[i].map((v, c) => (v - sum(x.map((solved, k) => row[k] * solved[c]))) / row[i])));
  return x;
}

/** L⁻ᵀ b: the same from the other end. */
function backwardSolve(L, b) {
  const flipped = transpose(L).reverse().map((row) => [...row].reverse());
  return forwardSolve(flipped, [...b].reverse()).reverse();
}

const solve = (a, b) => ((L) => backwardSolve(L, forwardSolve(L, b)))(cholesky(a));
const inverse = (a) => solve(a, identity(a.length));
const logDeterminant = (a) => 2 * sum(cholesky(a).map((row, i) => Math.log(row[i])));
const squares = (a) => sum(a.map((row) => dot(row, row)));

// --- sums over data ---------------------------------------------------------------------------------------------------
function statistics({ D, K, inputs, targets, weights, probes }) {
  if (inputs.length !== targets.length) throw new Error("inputs and targets have different numbers of rows");
  const w = weights ?? inputs.map(() => 1);
  if (w.some((v) => v < 0)) throw new Error("negative weight");
  const weighted = (rows) => rows.map((row, n) => row.map((v) => w[n] * v));
  return {
    count: sum(w),
    gram: gram(inputs, weighted(inputs), D, D),
    cross: gram(inputs, weighted(targets), D, K),
    target_gram: gram(targets, weighted(targets), K, K),
    curvature: probes ? gram(probes, weighted(probes), K, K) : zeros(K, K),
  };
}

function combine(a, b, left, right) {
  const mix = (x, y) => (Array.isArray(x) ? add(scale(left, x), scale(right, y)) : left * x + right * y);
  return Object.fromEntries(Object.keys(b).map((name) => [name, mix(a[name], b[name])]));
}

function block_sum({ D, K, blocks }) {
  return blocks.map((block) => statistics({ D, K, ...block })).reduce((a, b) => combine(a, b, 1, 1));
}

function ema_step({ D, K, statistics: old, batch, total, rate }) {
  const now = statistics({ D, K, ...batch });
  return combine(old, now, 1 - rate, (rate * total) / now.count);
}

// --- the layer's posterior --------------------------------------------------------------------------------------------
function layer_posterior({ gram: U, cross, prior_mean, prior_precision }) {
  const P = add(prior_precision, U);
  const mean = solve(P, add(multiply(prior_precision, prior_mean), cross));
  if (!mean.flat().every(Number.isFinite)) throw new Error("the mean is not finite");
  return { mean, row_precision: P };
}

function step_form({ mean, gram: U, inputs, gradients, weight, step, prior_mean, prior_precision, scale: eta }) {
  const pulled = multiply(prior_precision, subtract(mean, prior_mean));
  const pushed = multiply(scale(weight, multiply(transpose(inputs), gradients)), step);
  return { mean: subtract(mean, scale(eta, solve(add(U, prior_precision), add(pushed, pulled)))) };
}

function log_evidence({ inputs, targets, prior_mean: M0, prior_precision: prior, noise_covariance: S }) {
  const [d, k] = [M0.length, M0[0].length];
  const s = statistics({ D: d, K: k, inputs, targets });
  const P = add(prior, s.gram);
  const white = forwardSolve(cholesky(P), add(multiply(prior, M0), s.cross));
  const first = add(s.target_gram, multiply(transpose(M0), multiply(prior, M0)));
  const square = trace(multiply(inverse(S), subtract(first, multiply(transpose(white), white))));
  const rows = s.count * (k * Math.log(2 * Math.PI) + logDeterminant(S));
  return { log_evidence: -(rows + k * (logDeterminant(P) - logDeterminant(prior)) + square) / 2 };
}

// --- the matrix-normal: P = L Lᵀ, Σ = R Rᵀ ----------------------------------------------------------------------------
const logCovariance = (q) =>
  q.mean.length * logDeterminant(q.column_covariance) - q.mean[0].length * logDeterminant(q.row_precision);
const size = (q) => q.mean.length * q.mean[0].length;

function distance(q, difference) {
  if (q.row_precision.length !== q.mean.length) throw new Error("row_precision does not fit the mean");
  const rows = multiply(transpose(cholesky(q.row_precision)), difference);
  return squares(forwardSolve(cholesky(q.column_covariance), transpose(rows)));
}

function log_density({ w, ...q }) {
  return { log_density: -(distance(q, subtract(w, q.mean)) + size(q) * Math.log(2 * Math.PI) + logCovariance(q)) / 2 };
}

function entropy(q) {
  const total = logCovariance(q);
  return { log_determinant: total, entropy: (size(q) * (1 + Math.log(2 * Math.PI)) + total) / 2 };
}

function kl_divergence({ first: p, second: q }) {
  if (p.mean.length !== q.mean.length) throw new Error("the means have different shapes");
  const rows = trace(solve(p.row_precision, q.row_precision));
  const columns = trace(solve(q.column_covariance, p.column_covariance));
  const moved = distance(q, subtract(p.mean, q.mean));
  return { kl_divergence: (rows * columns + moved - size(p) + logCovariance(q) - logCovariance(p)) / 2 };
}

function natural_parameters({ mean, row_precision: P, column_covariance }) {
  const Q = inverse(column_covariance);
  const precision = Q.flatMap((q) => P.map((p) => q.flatMap((a) => p.map((b) => a * b))));
  return { precision, linear: multiply(multiply(P, mean), Q) };
}

function sampling({ mean, row_precision, column_covariance, draws }) {
  const [L, Rt] = [cholesky(row_precision), transpose(cholesky(column_covariance))];
  return { weights: draws.map((z) => add(mean, multiply(backwardSolve(L, z), Rt))) };
}

function layer_predictive({ mean, row_precision, column_covariance, inputs }) {
  const white = transpose(forwardSolve(cholesky(row_precision), transpose(inputs)));
  return { mean: multiply(inputs, mean), covariance: white.map((row) => scale(dot(row, row), column_covariance)) };
}

// --- answering --------------------------------------------------------------------------------------------------------
const OPERATIONS = {
  statistics, block_sum, ema_step, layer_posterior, step_form, log_evidence, log_density, entropy, kl_divergence,
  natural_parameters, sampling, layer_predictive,
};
const revive = (_, value) => (value === "NaN" ? NaN : value);

function answered(operation, inputs) {
  try {
    return operation(inputs);
  } catch (error) {
    return { error: error.message };
  }
}

if (process.argv[2] === "--operations") {
  console.log(Object.keys(OPERATIONS).join(","));
} else {
  const [folder, out] = process.argv.slice(2);
  const answers = {};
  for (const [name, operation] of Object.entries(OPERATIONS)) {
    const { cases } = JSON.parse(readFileSync(join(folder, `${name}.json`), "utf8"), revive);
    for (const { id, inputs } of cases) answers[id] = answered(operation, inputs);
  }
  const head = { format: "balinp-candidate/1", name: "JavaScript port", dtype: "float64" };
  writeFileSync(out, JSON.stringify({ ...head, versions: { node: process.version }, answers }));
}
