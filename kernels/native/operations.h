// The ops for one instruction set: from the arguments of the C interface to panels and tiles.
#pragma once

#include "attention.h"
#include "conv_mlp.h"
#include "digest.h"
#include "operation_table.h"
#include "parallel.h"
#include "places.h"

namespace ISA {

using restore_native::run_in_parallel;

static Head head_of(const RestoreWindows &w, int64_t head, int64_t kind) {
    Head result{};
    result.keys = w.key.tokens;
    result.bias = w.bias + head * w.bias_stride;
    result.key_at = w.key_at;
    if (w.query.labels && kind) {
        result.query_labels = w.query.labels + kind * w.query.label_stride;
        result.key_labels = w.key.labels + kind * w.key.label_stride;
    }
    return result;
}

// Windows that are computed together: several small ones fill panels better than each alone.
static int64_t windows_together(int64_t tokens) {
    int64_t best = 1;
    for (int64_t n = 2; n * tokens <= 5 * PANEL; ++n) {
        // padded(n tokens) / n tokens < padded(best tokens) / best tokens
        if (padded(n * tokens) * best < padded(best * tokens) * n) best = n;
    }
    return best;
}

struct BranchWork {
    const RestoreBranch *call;
    const RestoreGrid &grid;
    Windows windows;
    int64_t together;
    int64_t stride;  // of a feature: an odd number of cache lines, so that all sets are used

    explicit BranchWork(const RestoreBranch *c)
        : call(c), grid(c->windows.query), windows(c->images, c->height, c->width, grid) {
        // biases per token are those of panels that begin with a window
        together = c->qkv.per_token ? 1 : windows_together(grid.tokens);
        // the last panel of the last window may reach beyond all tokens
        stride = padded(together * grid.tokens) + (together > 1 ? PANEL : 0) + LANES;
    }

    // of queries, keys, values or what becomes of them; values are no units but as many numbers
    int64_t features() const { return call->heads * call->each / TERMS * stride; }

    // what an MLP needs: x as it came, and two panels between
    int64_t before() const { return call->widen.packed ? call->channels * stride : 0; }
    int64_t between() const {
        return call->widen.packed ? (call->channels + call->widen.outputs) * PANEL : 0;
    }

    int64_t scratch() const {
        return call->channels * PANEL + 4 * features() + before() +
               (grid.tokens * PANEL > between() ? grid.tokens * PANEL : between()) + PANEL;
    }

    static void run(const void *self, int64_t item, float *scratch) {
        static_cast<const BranchWork *>(self)->run(item, scratch);
    }

    void run(int64_t item, float *scratch) const {
        const RestoreBranch &c = *call;
        const int64_t first = item * together;
        const int64_t count =
            first + together < windows.count() ? together : windows.count() - first;
        const int64_t tokens = count * grid.tokens;
        const Panel x{scratch, PANEL};
        Unit *qkv = reinterpret_cast<Unit *>(scratch + c.channels * PANEL);
        Unit *mixed = qkv + 3 * features();
        const Panel came{scratch + c.channels * PANEL + 4 * features(), stride};
        float *rest = came.data + before();  // logits, then what is between the MLP's layers
        for (int64_t t = 0; t < tokens; t += PANEL) project(first, t, tokens, x, came, qkv);
        if (first + together < windows.count()) {
            if (c.x.half) prefetch_window<Value>(first + together);
            else prefetch_window<float>(first + together);
        }
        for (int64_t w = 0; w < count; ++w) mix(first + w, w, qkv, mixed, rest);
        for (int64_t t = 0; t < tokens; t += PANEL) {
            apply_linear(c.proj, 0, 0, false, {mixed + t, stride}, x);
            if (c.widen.packed) add_mlp({came.data + t, stride}, rest, x);
            if (c.out.half) give<Value>(first, t, tokens, x);
            else give<float>(first, t, tokens, x);
        }
    }

    template <typename Number>
    void prefetch_window(int64_t window) const {
        const RestoreBranch &c = *call;
        for (int64_t t = 0; t < grid.tokens; t += LANES) {
            Pixels pixels;
            Number *rows[LANES];
            pixels.find(windows, grid, window, t, grid.tokens - t);
            pixels.in(c.x, rows);
            for (int64_t i = 0; i < LANES; ++i) prefetch(rows[i], c.channels);
        }
    }

    template <typename Number>
    void take(int64_t first, int64_t token, int64_t tokens, Panel x) const {
        for (int64_t half = 0; half < PANEL; half += LANES) {
            // beyond the last token the last one once more: finite, and never written back
            const int64_t from = token + half < tokens ? token + half : tokens - 1;
            Pixels pixels;
            Number *rows[LANES];
            pixels.find(windows, grid, first, from, tokens - from);
            pixels.in(call->x, rows);
            gather(rows, call->channels, 1.0f, {x.data + half, x.stride});
        }
    }

    void project(int64_t first, int64_t token, int64_t tokens, Panel x, Panel came,
                 Unit *qkv) const {
        const RestoreBranch &c = *call;
        const Panel taken = c.widen.packed ? Panel{came.data + token, came.stride} : x;
        if (c.x.half) take<Value>(first, token, tokens, taken);
        else take<float>(first, token, tokens, taken);
        if (c.normalise) normalise(taken, c.channels, c.eps, x);
        const Terms terms = as_terms(x, c.channels);
        const int64_t row = padded(grid.tokens);
        if (TERMS == 1) {
            apply_linear<AsTerms<false>>(c.qkv, token, row, terms, {qkv + token, stride});
            return;
        }
        RestoreLinear part = c.qkv;  // of queries and keys, then of values
        const int64_t before = c.qkv.outputs / 3 * 2;
        part.outputs = before;
        apply_linear<AsTerms<false>>(part, token, row, terms, {qkv + token, stride});
        part.outputs = c.qkv.outputs - before;
        part.packed += before * units_of(c.qkv.inputs);
        part.bias += before * (c.qkv.per_token ? row : 1);
        Value *const values = reinterpret_cast<Value *>(qkv + 2 * features());
        apply_linear<AsRows>(part, token, row, terms, {values + token, stride});
    }

    void mix(int64_t window, int64_t index, const Unit *qkv, Unit *mixed, float *logits) const {
        const RestoreBranch &c = *call;
        const int64_t kind = windows.place(window).kind, start = index * grid.tokens;
        const Value *const values = reinterpret_cast<const Value *>(qkv + 2 * features());
        for (int64_t h = 0; h < c.heads; ++h) {
            Head head = head_of(c.windows, h, kind);
            const int64_t feature = h * c.each / TERMS * stride;
            head.query = qkv + feature + start;
            head.key = head.query + features();
            head.value = values + h * c.each * stride + start;
            head.query_stride = head.key_stride = head.value_stride = stride;
            head.channels = c.each;
            for (int64_t q = 0; q < grid.tokens; q += PANEL)
                attend<AsTerms<false>>(head, q, logits,
                                       {mixed + feature + start + q, stride});
        }
    }

    // y + came, and the MLP's of that added to it; `came` is lost
    void add_mlp(Panel came, float *scratch, Panel y) const {
        const RestoreBranch &c = *call;
        const Panel x{scratch, PANEL};
        const Terms between{reinterpret_cast<Unit *>(scratch + c.channels * PANEL), PANEL};
        add_rows(y, c.channels, came);
        normalise(came, c.channels, c.mlp_eps, x);
        apply_both(c.widen, true, c.narrow, as_terms(x, c.channels), between, y);
        add_rows(came, c.channels, y);
    }

    template <typename Number>
    void give(int64_t first, int64_t token, int64_t tokens, Panel y) const {
        const RestoreBranch &c = *call;
        for (int64_t half = 0; half < PANEL && token + half < tokens; half += LANES) {
            const int64_t from = token + half;
            const int64_t count = tokens - from < LANES ? tokens - from : LANES;
            Pixels pixels;
            Number *rows[LANES], *residual[LANES];
            pixels.find(windows, grid, first, from, tokens - from);
            pixels.in(c.out, rows);
            if (c.residual.data) pixels.in(c.residual, residual);
            scatter({y.data + half, y.stride}, c.channels, c.residual.data ? residual : nullptr,
                    rows, count);
        }
    }
};

static int64_t branch(const RestoreBranch *call, int64_t threads) {
    const BranchWork work(call);
    const int64_t items = (work.windows.count() + work.together - 1) / work.together;
    return !run_in_parallel(threads, items, work.scratch(), BranchWork::run, &work);
}

struct AttentionWork {
    const RestoreAttention *call;
    const RestoreGrid &queries, &keys;
    Windows windows;
    int64_t together;  // heads of an item
    int64_t query_stride, key_stride;

    explicit AttentionWork(const RestoreAttention *c)
        : call(c), queries(c->windows.query), keys(c->windows.key),
          windows(c->images, c->height, c->width, queries),
          query_stride(padded(queries.tokens) + LANES), key_stride(padded(keys.tokens) + LANES) {
        // as many as half of the second-level cache of a small core holds
        together = c->heads;
        while (together > 1 && (c->heads % together || features() > MOST_FLOATS)) --together;
    }

    static constexpr int64_t MOST_FLOATS = 65536;

    int64_t width() const { return together * (call->channels / call->heads); }
    int64_t groups() const { return call->heads / together; }
    int64_t features() const { return width() * 2 * (query_stride + key_stride); }
    int64_t scratch() const { return features() + keys.tokens * PANEL + width() + PANEL; }

    static void run(const void *self, int64_t item, float *scratch) {
        static_cast<const AttentionWork *>(self)->run(item, scratch);
    }

    // An item is a group of heads of a window; groups of one window follow each other.
    void run(int64_t item, float *scratch) const {
        const RestoreAttention &c = *call;
        const int64_t group = item % groups(), index = item / groups();
        const int64_t window = c.chosen ? c.chosen[index] : index;
        const int64_t channel = group * width();
        float *query = scratch, *mixed = query + width() * query_stride;
        float *key = mixed + width() * query_stride, *value = key + width() * key_stride;
        float *logits = value + width() * key_stride;
        float *zeros = logits + keys.tokens * PANEL;
        for (int64_t i = 0; i < width(); ++i) zeros[i] = 0.0f;
        take(c.query, queries, window, channel, c.scale, {query, query_stride}, zeros);
        take(c.key, keys, window, channel, 1.0f, {key, key_stride}, zeros);
        take(c.value, keys, window, channel, 1.0f, {value, key_stride}, zeros);
        const int64_t each = c.channels / c.heads, kind = windows.place(window).kind;
        for (int64_t h = 0; h < together; ++h) {
            Head head = head_of(c.windows, group * together + h, kind);
            const int64_t first = h * each;
            head.query = as_terms({query + first * query_stride, query_stride}, each,
                                  padded(queries.tokens)).data;
            head.key = as_terms({key + first * key_stride, key_stride}, each, keys.tokens).data;
            const Rows rows = as_rows({value + first * key_stride, key_stride}, each, keys.tokens);
            head.value = rows.data;
            head.query_stride = query_stride;
            head.key_stride = key_stride;
            head.value_stride = rows.stride;
            head.channels = each;
            for (int64_t q = 0; q < queries.tokens; q += PANEL)
                attend<AsPanel<false>>(head, q, logits,
                                       {mixed + first * query_stride + q, query_stride});
        }
        const Panel y{mixed, query_stride};
        if (c.out.half) give<Value>(c.out, queries, window, channel, y);
        else give<float>(c.out, queries, window, channel, y);
    }

    template <typename Number>
    void find(const RestoreMap &map, const RestoreGrid &grid, int64_t window, int64_t token,
              int64_t channel, Number **rows, Number *zeros) const {
        Pixels pixels;
        RestoreMap part = map;
        part.data = static_cast<Number *>(map.data) + channel;
        pixels.find(windows, grid, window, token, grid.tokens - token);
        pixels.in(part, rows, zeros);
    }

    void take(const RestoreMap &map, const RestoreGrid &grid, int64_t window, int64_t channel,
              float scale, Panel to, float *zeros) const {
        if (map.half) take_numbers<Value>(map, grid, window, channel, scale, to, zeros);
        else take_numbers<float>(map, grid, window, channel, scale, to, zeros);
    }

    template <typename Number>
    void take_numbers(const RestoreMap &map, const RestoreGrid &grid, int64_t window,
                      int64_t channel, float scale, Panel to, float *zeros) const {
        for (int64_t t = 0; t < padded(grid.tokens); t += LANES) {
            Number *rows[LANES];
            find(map, grid, window, t < grid.tokens ? t : grid.tokens - 1, channel, rows,
                 reinterpret_cast<Number *>(zeros));
            gather(rows, width(), scale, {to.data + t, to.stride});
        }
    }

    template <typename Number>
    void give(const RestoreMap &map, const RestoreGrid &grid, int64_t window, int64_t channel,
              Panel from) const {
        for (int64_t t = 0; t < grid.tokens; t += LANES) {
            Number *rows[LANES];
            const int64_t count = grid.tokens - t < LANES ? grid.tokens - t : LANES;
            find<Number>(map, grid, window, t, channel, rows, nullptr);
            scatter({from.data + t, from.stride}, width(), nullptr, rows, count);
        }
    }
};

static int64_t attention(const RestoreAttention *call, int64_t threads) {
    const AttentionWork work(call);
    return !run_in_parallel(threads, call->count * work.groups(), work.scratch(),
                            AttentionWork::run, &work);
}

struct TokensWork {
    const RestoreTokens *call;

    int64_t scratch() const {
        const RestoreTokens &c = *call;
        return PANEL * (c.channels + c.first.outputs + (c.second.packed ? c.second.outputs : 0));
    }

    static void run(const void *self, int64_t item, float *scratch) {
        static_cast<const TokensWork *>(self)->run(item * PANEL, scratch);
    }

    // y = [W2] [gelu] (W1 [normalised] x + b1) [+ b2] [+ residual], for the tokens of a panel; or
    // y = norm of x [+ residual]
    void run(int64_t token, float *scratch) const {
        const RestoreTokens &c = *call;
        const Panel x{scratch, PANEL};
        const Panel hidden{x.data + c.channels * PANEL, PANEL};
        if (c.x_half) take<Value>(token, x);
        else take<float>(token, x);
        if (c.normalise) normalise(x, c.channels, c.eps, x);
        if (!c.first.packed) {
            scale_and_shift(x, c.channels, c.norm_weight, c.norm_bias);
            return c.out_half ? give<Value>(token, x) : give<float>(token, x);
        }
        const Terms terms = as_terms(x, c.channels);
        Panel y = hidden;
        if (!c.second.packed) {
            apply_linear(c.first, 0, 0, c.gelu, terms, hidden);
        } else {
            const Terms between{reinterpret_cast<Unit *>(hidden.data), PANEL};
            y.data += c.first.outputs * PANEL;
            apply_both(c.first, c.gelu, c.second, terms, between, y);
        }
        if (c.out_half) give<Value>(token, y);
        else give<float>(token, y);
    }

    template <typename Number>
    void take(int64_t token, Panel x) const {
        const RestoreTokens &c = *call;
        const Number *const data = static_cast<const Number *>(c.x);
        for (int64_t half = 0; half < PANEL; half += LANES) {
            const Number *rows[LANES];
            for (int64_t t = 0; t < LANES; ++t) {
                const int64_t at = token + half + t < c.count ? token + half + t : c.count - 1;
                rows[t] = data + at * c.x_stride;
            }
            gather(rows, c.channels, 1.0f, {x.data + half, x.stride});
        }
        for (int64_t t = token + PANEL; t < token + 2 * PANEL && t < c.count; ++t)
            prefetch(data + t * c.x_stride, c.channels);
    }

    template <typename Number>
    void give(int64_t token, Panel y) const {
        const RestoreTokens &c = *call;
        const Number *const added = static_cast<const Number *>(c.residual);
        Number *const out = static_cast<Number *>(c.out);
        const RestoreLinear &end = c.second.packed ? c.second : c.first;
        for (int64_t half = 0; half < PANEL && token + half < c.count; half += LANES) {
            const Number *residual[LANES];
            Number *rows[LANES];
            const int64_t from = token + half;
            const int64_t count = c.count - from < LANES ? c.count - from : LANES;
            for (int64_t t = 0; t < count; ++t) {
                residual[t] = added + (from + t) * c.residual_stride;
                rows[t] = out + (from + t) * c.out_stride;
            }
            scatter({y.data + half, y.stride}, end.outputs, added ? residual : nullptr, rows,
                    count);
        }
    }
};

static int64_t tokens(const RestoreTokens *call, int64_t threads) {
    const TokensWork work{call};
    const int64_t items = (call->count + PANEL - 1) / PANEL;
    return !run_in_parallel(threads, items, work.scratch(), TokensWork::run, &work);
}

}  // namespace ISA
