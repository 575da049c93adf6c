// Attention inside groups of tokens from anywhere in an image.
#pragma once

#include "parallel.h"
#include "products.h"

namespace ISA {

struct GroupsWork {
    const RestoreGroups *call;
    int64_t groups;    // of an image
    int64_t together;  // heads of an item
    int64_t stride;    // of a feature: an odd number of cache lines, so that all sets are used

    explicit GroupsWork(const RestoreGroups *c)
        : call(c), groups((c->tokens + c->size - 1) / c->size), stride(padded(c->size) + LANES) {
        // as many as half of the second-level cache of a small core holds
        together = c->heads;
        while (together > 1 && (c->heads % together || features() > MOST_FLOATS)) --together;
    }

    static constexpr int64_t MOST_FLOATS = 65536;

    int64_t width() const { return together * (call->channels / call->heads); }
    int64_t parts() const { return call->heads / together; }
    int64_t features() const { return width() * 3 * stride; }
    int64_t scratch() const { return features() + call->size * PANEL; }

    static void run(const void *self, int64_t item, float *scratch) {
        static_cast<const GroupsWork *>(self)->run(item, scratch);
    }

    // An item is some heads of a group; those of one group follow each other.
    void run(int64_t item, float *scratch) const {
        const RestoreGroups &c = *call;
        const int64_t group = item / parts(), channel = item % parts() * width();
        const int64_t image = group / groups, first = group % groups * c.size;
        const int64_t token = 3 * c.channels;
        const float *const tokens = c.qkv + image * c.tokens * token + channel;
        const int64_t *const order = c.order + image * c.tokens;
        float *const query = scratch, *const key = query + width() * stride;
        float *const value = key + width() * stride;
        float *const logits = value + width() * stride;
        for (int64_t t = 0; t < padded(c.size); t += LANES) {
            const float *rows[LANES], *keys[LANES];
            for (int64_t i = 0; i < LANES; ++i) {
                rows[i] = tokens + token * token_at(order, first + within(t + i));
                keys[i] = rows[i] + c.channels;
            }
            gather(rows, width(), c.scale, {query + t, stride});
            gather(keys, width(), 1.0f, {key + t, stride});
        }
        for (int64_t t = 0; t < c.size; ++t)
            std::memcpy(value + t * width(),
                        tokens + token * token_at(order, first + t) + 2 * c.channels,
                        static_cast<size_t>(width()) * sizeof(float));
        const int64_t each = c.channels / c.heads;
        for (int64_t h = 0; h < together; ++h) {
            const int64_t feature = h * each;
            for (int64_t q = 0; q < c.size; q += PANEL) {
                // the queries make room for what becomes of them
                const Panel panel{query + feature * stride + q, stride};
                Vector factor[ACROSS];
                weigh({key + feature * stride, stride}, c.size, panel, each, {logits, PANEL},
                      factor);
                Product<Alone>::run({value + feature, width()}, each, {logits, PANEL}, c.size,
                                    panel);
                scale_rows(panel, each, factor);
            }
        }
        const int64_t rest = c.tokens - first, count = rest < c.size ? rest : c.size;
        float *const out = c.out + image * c.tokens * c.channels + channel;
        for (int64_t t = 0; t < count; t += LANES) {
            float *rows[LANES];
            for (int64_t i = 0; i < LANES; ++i)
                rows[i] = out + c.channels * token_at(order, first + within(t + i));
            scatter({query + t, stride}, width(), nullptr, rows,
                    count - t < LANES ? count - t : LANES);
        }
    }

    // Behind the last token of a group it is taken once more.
    int64_t within(int64_t token) const { return token < call->size ? token : call->size - 1; }

    // The row of sorted tokens goes on with its own end reversed.
    int64_t token_at(const int64_t *order, int64_t place) const {
        return order[place < call->tokens ? place : 2 * call->tokens - 1 - place];
    }
};

static int64_t groups(const RestoreGroups *call, int64_t threads) {
    const GroupsWork work(call);
    return !restore_native::run_in_parallel(threads, call->images * work.groups * work.parts(),
                                            work.scratch(), GroupsWork::run, &work);
}

}  // namespace ISA
