// Gradients of attention in windows. Weights are computed again, the queries of a panel at a time.
#pragma once

#include "operations.h"

namespace ISA {

struct HeadGradients {  // of one head of one window, laid out as what they are of
    const float *result;
    float *query, *key, *value;  // added to
    float *bias;                 // added to, of natural logits
};

// to[b] = sum_f value[f][b] result[f], for a tile of keys b from `first` on
template <int ROWS>
struct WeightTile {
    static void run(const Head &head, int64_t first, const float *result, float *to) {
        Vector sums[ROWS][ACROSS] = {};
        accumulate(sums, head.value + first, Adjacent{head.value_stride}, result,
                   head.query_stride, head.channels);
        store_tile(sums, {to + first * PANEL, PANEL});
    }
};
typedef void WeightFunction(const Head &, int64_t, const float *, float *);
static constexpr ByRows<WeightTile, WeightFunction> WEIGHT_TILES;

// out[f] += sum_k x[f][k] vectors[k], for a tile of features f
template <int ROWS>
struct AddTile {
    static void run(Panel x, Panel vectors, int64_t depth, Panel out) {
        for (int64_t k = 0; k < depth; k += MOST_TERMS) {
            Vector sums[ROWS][ACROSS] = {};
            accumulate(sums, x.data + k, AcrossRows{x.stride}, vectors.data + k * vectors.stride,
                       vectors.stride, depth - k < MOST_TERMS ? depth - k : MOST_TERMS);
            add_tile(sums, out);
            store_tile(sums, out);
        }
    }
};
typedef void AddFunction(Panel, Panel, int64_t, Panel);
static constexpr ByRows<AddTile, AddFunction> ADD_TILES;

static void add_products(Panel x, int64_t features, Panel vectors, int64_t depth, Panel out) {
    const int64_t tiles = count_tiles(features);
    for (int64_t t = 0; t < tiles; ++t) {
        const int64_t first = tile_start(features, tiles, t);
        const int64_t rows = tile_start(features, tiles, t + 1) - first;
        ADD_TILES.of[rows]({x.data + first * x.stride, x.stride}, vectors, depth,
                           {out.data + first * out.stride, out.stride});
    }
}

// [rows][PANEL] to [PANEL][rows], for rows that fill vectors.
static void turn(const float *from, int64_t rows, float *to) {
    for (int64_t b = 0; b < rows; b += LANES)
        for (int64_t a = 0; a < PANEL; a += LANES) {
            Vector v[LANES];
            UNROLL for (int i = 0; i < LANES; ++i) v[i] = load(from + (b + i) * PANEL + a);
            transpose(v);
            UNROLL for (int i = 0; i < LANES; ++i) store(to + (a + i) * rows + b, v[i]);
        }
}

// What the PANEL queries from `query` on add to the gradients. Each of the three scratches holds
// PANEL * padded(head.keys) floats; of the first two the rows behind the keys are 0.
static void differentiate(const Head &head, int64_t query, const HeadGradients &to, float *weights,
                          float *changes, float *turned) {
    Vector factor[ACROSS];
    weigh(head, query, weights, factor);
    const float *const result = to.result + query;
    const int64_t tiles = count_tiles(head.keys), rows = padded(head.keys);
    for (int64_t t = 0; t < tiles; ++t) {
        const int64_t first = tile_start(head.keys, tiles, t);
        const int64_t count = tile_start(head.keys, tiles, t + 1) - first;
        WEIGHT_TILES.of[count](head, first, result, changes);
    }
    for (int64_t half = 0; half < ACROSS; ++half) {
        float *const weight = weights + half * LANES, *const change = changes + half * LANES;
        Vector sums[4] = {}, rests[4] = {};
        for (int64_t b = 0; b < rows; b += 4)
            UNROLL for (int i = 0; i < 4; ++i) {
                const Vector w = load(weight + (b + i) * PANEL) * factor[half];
                store(weight + (b + i) * PANEL, w);
                sums[i] += w * load(change + (b + i) * PANEL);
            }
        const Vector mean = total(sums);
        for (int64_t b = 0; b < rows; b += 4)
            UNROLL for (int i = 0; i < 4; ++i) {
                float *const c = change + (b + i) * PANEL;
                const Vector d = load(weight + (b + i) * PANEL) * (load(c) - mean);
                store(c, d);
                rests[i] += d;
            }
        // changes of logits add up to 0; where one weight is nearly 1 they are far below the mean,
        // whose rounding would be most of them
        const Vector rest = total(rests);
        for (int64_t b = 0; b < head.keys; ++b) {
            const Vector d = load(change + b * PANEL) - load(weight + b * PANEL) * rest;
            store(change + b * PANEL, d);
            float *const bias = to.bias + head.key_at[b] + query + half * LANES;
            store(bias, load(bias) + d);
        }
    }
    const int64_t n = head.channels, queries = head.query_stride, keys = head.key_stride;
    const Panel key{const_cast<float *>(head.key), keys};
    const Panel own{const_cast<float *>(head.query) + query, queries};
    const Panel given{const_cast<float *>(result), queries};
    add_products(key, n, {changes, PANEL}, head.keys, {to.query + query, queries});
    turn(changes, rows, turned);
    for (int64_t b = 0; b < rows; b += PANEL)
        add_products(own, n, {turned + b, rows}, PANEL, {to.key + b, keys});
    turn(weights, rows, turned);
    for (int64_t b = 0; b < rows; b += PANEL)
        add_products(given, n, {turned + b, rows}, PANEL, {to.value + b, keys});
}

struct AttentionGradientsWork {
    const RestoreAttentionGradients *call;
    const AttentionWork forward;

    explicit AttentionGradientsWork(const RestoreAttentionGradients *c)
        : call(c), forward(&c->attention) {}

    int64_t of_queries() const { return forward.width() * forward.query_stride; }
    int64_t of_keys() const { return forward.width() * forward.key_stride; }
    int64_t of_panel() const { return padded(forward.keys.tokens) * PANEL; }
    int64_t scratch() const {
        return 3 * of_queries() + 4 * of_keys() + 3 * of_panel() + forward.width() + PANEL;
    }

    static void run(const void *self, int64_t item, float *scratch) {
        static_cast<const AttentionGradientsWork *>(self)->run(item, scratch);
    }

    // An item is a group of heads of a part of the windows, which has gradients of biases of its
    // own: sums are the same for any number of threads.
    void run(int64_t item, float *scratch) const {
        const int64_t group = item % forward.groups(), part = item / forward.groups();
        const int64_t count = call->attention.count;
        for (int64_t i = count * part / call->parts; i < count * (part + 1) / call->parts; ++i)
            run(group, part, call->attention.chosen ? call->attention.chosen[i] : i, scratch);
    }

    void run(int64_t group, int64_t part, int64_t window, float *scratch) const {
        const RestoreAttention &c = call->attention;
        const int64_t width = forward.width(), channel = group * width, each = c.channels / c.heads;
        const Panel query{scratch, forward.query_stride}, result = next(query, of_queries());
        const Panel dquery = next(result, of_queries());
        const Panel key{dquery.data + of_queries(), forward.key_stride};
        const Panel value = next(key, of_keys()), dkey = next(value, of_keys());
        const Panel dvalue = next(dkey, of_keys());
        float *const weights = dvalue.data + of_keys(), *const changes = weights + of_panel();
        float *const turned = changes + of_panel(), *const zeros = turned + of_panel();
        std::memset(zeros, 0, width * sizeof(float));
        std::memset(weights, 0, 2 * of_panel() * sizeof(float));
        std::memset(dquery.data, 0, of_queries() * sizeof(float));
        std::memset(dkey.data, 0, 2 * of_keys() * sizeof(float));
        forward.take(c.query, forward.queries, window, channel, c.scale, query, zeros);
        forward.take(c.key, forward.keys, window, channel, 1.0f, key, zeros);
        forward.take(c.value, forward.keys, window, channel, 1.0f, value, zeros);
        forward.take(c.out, forward.queries, window, channel, 1.0f, result, zeros);
        for (int64_t f = 0; f < width; ++f)  // queries that only fill a panel change nothing
            for (int64_t t = forward.queries.tokens; t < result.stride; ++t)
                result.data[f * result.stride + t] = 0.0f;
        const int64_t kind = forward.windows.place(window).kind;
        for (int64_t h = 0; h < forward.together; ++h) {
            const int64_t index = group * forward.together + h, first = h * each;
            Head head = head_of(c.windows, index, kind);
            head.query = query.data + first * query.stride;
            head.key = key.data + first * key.stride;
            head.value = value.data + first * value.stride;
            head.query_stride = query.stride;
            head.key_stride = head.value_stride = key.stride;
            head.channels = each;
            const HeadGradients gradients{
                result.data + first * result.stride, dquery.data + first * dquery.stride,
                dkey.data + first * dkey.stride, dvalue.data + first * dvalue.stride,
                call->bias + (part * c.heads + index) * c.windows.bias_stride};
            for (int64_t q = 0; q < forward.queries.tokens; q += PANEL)
                differentiate(head, q, gradients, weights, changes, turned);
        }
        scale(dquery, c.scale / LOG2_E);
        scale(dkey, 1.0f / LOG2_E);  // as the queries are times log2 e
        forward.give<float>(call->query, forward.queries, window, channel, dquery);
        forward.give<float>(call->key, forward.keys, window, channel, dkey);
        forward.give<float>(call->value, forward.keys, window, channel, dvalue);
    }

    static Panel next(Panel x, int64_t floats) { return {x.data + floats, x.stride}; }

    void scale(Panel x, float factor) const {
        for (int64_t i = 0; i < forward.width() * x.stride; i += LANES)
            store(x.data + i, load(x.data + i) * factor);
    }
};

static int64_t attention_gradients(const RestoreAttentionGradients *call, int64_t threads) {
    const AttentionGradientsWork work(call);
    return !run_in_parallel(threads, call->parts * work.forward.groups(), work.scratch(),
                            AttentionGradientsWork::run, &work);
}

}  // namespace ISA
