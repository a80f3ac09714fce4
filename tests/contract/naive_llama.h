// A Llama in double precision, one loop for each definition: what backends are compared with.
#pragma once

#include <cmath>
#include <map>
#include <random>
#include <vector>

#include "backend/backend.h"

namespace baton {

// A small random model in float32; matrices are [out][in].
struct NaiveLlama {
  struct Layer {
    std::vector<float> attention_norm, q, k, v, output, mlp_norm, gate, up, down;
  };
  ModelShape shape;
  std::vector<float> embedding, final_norm, head;
  std::vector<Layer> layers;

  NaiveLlama(uint32_t seed, bool interleaved) {
    shape.num_layers = 3;
    shape.hidden_size = 64;
    shape.intermediate_size = 96;
    shape.num_heads = 8;
    shape.num_kv_heads = 2;
    shape.head_dim = 16;
    shape.vocabulary = 130;
    shape.max_position = 512;
    shape.rope_interleaved = interleaved;
    for (int i = 0; i < shape.head_dim / 2; ++i) {
      shape.rope_inverse_frequencies.push_back(std::pow(10000.0f, -2.0f * static_cast<float>(i) / 16));
    }
    std::mt19937 random(seed);
    auto make = [&](int rows, int columns, float base, float spread) {
      std::vector<float> values(rows * columns);
      for (float& value : values) value = base + std::normal_distribution<float>(0, spread)(random);
      return values;
    };
    auto matrix = [&](int rows, int columns) { return make(rows, columns, 0, 1.5f / std::sqrt(float(columns))); };
    const int hidden = shape.hidden_size;
    embedding = make(shape.vocabulary, hidden, 0, 1);
    for (int i = 0; i < shape.num_layers; ++i) {
      layers.push_back({make(1, hidden, 1, 0.1f), matrix(128, hidden), matrix(32, hidden), matrix(32, hidden),
                        matrix(hidden, 128), make(1, hidden, 1, 0.1f), matrix(96, hidden), matrix(96, hidden),
                        matrix(hidden, 96)});
    }
    final_norm = make(1, hidden, 1, 0.1f);
    head = matrix(shape.vocabulary, hidden);
  }

  using Row = std::vector<double>;

  // Log-probabilities after each token.
  std::vector<Row> Logprobs(const std::vector<TokenId>& tokens) const {
    const int count = static_cast<int>(tokens.size());
    std::vector<Row> x(count);
    for (int t = 0; t < count; ++t) {
      x[t].assign(embedding.begin() + tokens[t] * shape.hidden_size,
                  embedding.begin() + (tokens[t] + 1) * shape.hidden_size);
    }
    for (const Layer& layer : layers) {
      std::vector<Row> q(count), k(count), v(count);
      for (int t = 0; t < count; ++t) {
        const Row normed = Norm(x[t], layer.attention_norm);
        q[t] = Rotate(Multiply(layer.q, normed), t);
        k[t] = Rotate(Multiply(layer.k, normed), t);
        v[t] = Multiply(layer.v, normed);
      }
      for (int t = 0; t < count; ++t) {
        Add(Multiply(layer.output, Attend(q[t], k, v, t)), x[t]);
        const Row normed = Norm(x[t], layer.mlp_norm);
        Row gate = Multiply(layer.gate, normed);
        const Row up = Multiply(layer.up, normed);
        for (size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
        Add(Multiply(layer.down, gate), x[t]);
      }
    }
    for (Row& row : x) {
      row = Multiply(head, Norm(row, final_norm));
      double sum = 0;
      for (double logit : row) sum += std::exp(logit);
      for (double& logit : row) logit -= std::log(sum);
    }
    return x;
  }

 private:
  static void Add(const Row& delta, Row& x) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += delta[i];
  }
  static Row Multiply(const std::vector<float>& weight, const Row& x) {
    Row out(weight.size() / x.size());
    for (size_t row = 0; row < out.size(); ++row) {
      for (size_t k = 0; k < x.size(); ++k) out[row] += weight[row * x.size() + k] * x[k];
    }
    return out;
  }
  Row Norm(const Row& x, const std::vector<float>& weight) const {
    double squares = 0;
    for (double value : x) squares += value * value;
    const double factor = 1 / std::sqrt(squares / static_cast<double>(x.size()) + shape.rms_norm_epsilon);
    Row out(x.size());
    for (size_t i = 0; i < x.size(); ++i) out[i] = x[i] * factor * weight[i];
    return out;
  }
  Row Rotate(Row x, int position) const {
    const int half = shape.head_dim / 2;
    for (size_t head = 0; head < x.size(); head += shape.head_dim) {
      for (int i = 0; i < half; ++i) {
        double& a = x[head + (shape.rope_interleaved ? 2 * i : i)];
        double& b = x[head + (shape.rope_interleaved ? 2 * i + 1 : i + half)];
        const double angle = shape.rope_inverse_frequencies[i] * position;
        const double rotated = a * std::cos(angle) - b * std::sin(angle);
        b = a * std::sin(angle) + b * std::cos(angle);
        a = rotated;
      }
    }
    return x;
  }
  Row Attend(const Row& q, const std::vector<Row>& k, const std::vector<Row>& v, int position) const {
    const int dim = shape.head_dim;
    const int group = shape.num_heads / shape.num_kv_heads;
    Row out(q.size());
    for (int head = 0; head < shape.num_heads; ++head) {
      const int kv = head / group * dim;
      double total = 0;
      for (int t = 0; t <= position; ++t) {
        double score = 0;
        for (int d = 0; d < dim; ++d) score += q[head * dim + d] * k[t][kv + d];
        const double weight = std::exp(score / std::sqrt(double(dim)));
        total += weight;
        for (int d = 0; d < dim; ++d) out[head * dim + d] += weight * v[t][kv + d];
      }
      for (int d = 0; d < dim; ++d) out[head * dim + d] /= total;
    }
    return out;
  }
};

}  // namespace baton
