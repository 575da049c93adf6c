// Operations of the native kernels against their definitions in double, on every instruction set
// that this CPU has. Needs no Python, so that it runs where other compilers and CPUs are tried.
//
// A result may be off by twice what the definition in the precision of the kernels is off by, and
// by one unit in the last place of the largest number.
#include "restore_native.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <vector>

namespace {

typedef std::vector<float> Floats;
constexpr int64_t BFLOAT16 = 3, THREADS = 2;
constexpr double LOG2_E = 1.4426950408889634, EPS = 1e-5;
constexpr float NOT_WRITTEN = std::numeric_limits<float>::quiet_NaN();

// What definitions compute in; `term` is what becomes of a factor of a product of matrices.
struct Exact {
    typedef double Real;
    static double term(double x) { return x; }
};
struct Single {
    typedef float Real;
    static float term(float x) { return x; }
};
struct Rounded {  // to bfloat16
    typedef float Real;
    static float term(float x) {
        uint32_t bits;
        std::memcpy(&bits, &x, sizeof bits);
        bits = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
        std::memcpy(&x, &bits, sizeof bits);
        return x;
    }
};
template <class A>
using Reals = std::vector<typename A::Real>;

// Numbers of mean 0 and variance `size`^2, the same everywhere.
Floats draw(int64_t count, double size = 1.0) {
    static uint64_t state = 1;
    Floats numbers(static_cast<size_t>(count));
    for (float &number : numbers) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        const double uniform = static_cast<double>(state >> 40) / (1 << 24);
        number = static_cast<float>((2.0 * uniform - 1.0) * 1.7320508075688772 * size);
    }
    return numbers;
}

template <typename Numbers>
double largest(const Numbers &numbers, const std::vector<double> *truth = nullptr) {
    double result = 0.0;
    for (size_t i = 0; i < numbers.size(); ++i) {
        const double size = std::fabs(numbers[i] - (truth ? (*truth)[i] : 0.0));
        if (std::isnan(size)) return size;
        result = std::max(result, size);
    }
    return result;
}

// Returns whether a result is wrong. `lowered` says whether the set of bfloat16 rounds factors.
template <typename Definition>
int check(const char *name, int64_t isa, bool lowered, const Floats &got,
          const Definition &definition) {
    const std::vector<double> truth = definition(Exact{});
    const Floats plain =
        lowered && isa == BFLOAT16 ? definition(Rounded{}) : definition(Single{});
    const double unit = std::ldexp(1.0, std::ilogb(largest(truth)) - 23);
    const double error = largest(got, &truth), allowed = 2.0 * largest(plain, &truth) + unit;
    const bool wrong = got.size() != truth.size() || !(error <= allowed);
    std::printf("%s, set %d: off by %.3g of at most %.3g%s\n", name, static_cast<int>(isa), error,
                allowed, wrong ? ": WRONG" : "");
    return wrong;
}

template <class A, typename Left, typename Right>
typename A::Real dot(int64_t count, const Left &left, const Right &right) {
    typename A::Real sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += A::term(left(i)) * A::term(right(i));
    return sum;
}

// Give each channel of the values, mixed by the softmax of the logits, and return that.
template <class A, typename Logit, typename Value, typename Give>
Reals<A> mix(int64_t keys, int64_t channels, const Logit &logit, const Value &value,
             const Give &give) {
    typedef typename A::Real Real;
    Reals<A> weights;
    for (int64_t b = 0; b < keys; ++b) weights.push_back(logit(b));
    const Real most = *std::max_element(weights.begin(), weights.end());
    Real sum = 0;
    for (Real &weight : weights) sum += weight = std::exp(weight - most);
    for (Real &weight : weights) weight /= sum;
    for (int64_t c = 0; c < channels; ++c)
        give(c, dot<A>(keys, [&](int64_t b) { return weights[b]; },
                       [&](int64_t b) { return value(b, c); }));
    return weights;
}

template <typename Real>
Real gelu(Real x) {
    return x * (1 + std::erf(x * static_cast<Real>(0.70710678118654752))) / 2;
}

template <typename Real>
void normalise(std::vector<Real> &row) {
    const Real count = static_cast<Real>(row.size());
    Real mean = 0, variance = 0;
    for (const Real x : row) mean += x;
    mean /= count;
    for (Real &x : row) x -= mean, variance += x * x;
    const Real factor = 1 / std::sqrt(variance / count + static_cast<Real>(EPS));
    for (Real &x : row) x *= factor;
}

struct Layer {
    int64_t outputs, inputs, tokens;  // that have a bias each, or 1
    Floats weight, bias;              // [outputs, inputs], [outputs, tokens]

    Layer(int64_t outs, int64_t ins, int64_t each = 1)
        : outputs(outs), inputs(ins), tokens(each),
          weight(draw(outs * ins, 1.0 / std::sqrt(static_cast<double>(ins)))),
          bias(draw(outs * each)) {}

    template <class A>
    Reals<A> apply(const Reals<A> &row, int64_t token = 0) const {
        Reals<A> y;
        for (int64_t o = 0; o < outputs; ++o)
            y.push_back(bias[o * tokens + token % tokens] +
                        dot<A>(inputs, [&](int64_t i) { return weight[o * inputs + i]; },
                               [&](int64_t i) { return row[i]; }));
        return y;
    }
};

int64_t padded(int64_t isa, int64_t tokens) {
    const int64_t panel = restore_panel(isa);
    return (tokens + panel - 1) / panel * panel;
}

struct Packed {
    Floats weight, bias, numbers;
    RestoreLinear argument;

    // `queries` is a factor of the first third of the outputs, or 0 where they are no such.
    Packed(int64_t isa, const Layer &layer, double queries = 0.0) : weight(layer.weight) {
        const int64_t outputs = layer.outputs, inputs = layer.inputs;
        const int64_t stride = layer.tokens == 1 ? 1 : padded(isa, layer.tokens);
        bias.resize(outputs * stride);
        for (int64_t o = 0; o < outputs; ++o) {
            const float factor = static_cast<float>(queries != 0.0 && o < outputs / 3 ? queries : 1);
            for (int64_t t = 0; t < layer.tokens; ++t)
                bias[o * stride + t] = layer.bias[o * layer.tokens + t] * factor;
            for (int64_t i = 0; i < inputs; ++i) weight[o * inputs + i] *= factor;
        }
        const int64_t units = isa == BFLOAT16 ? (inputs + 1) / 2 : inputs;
        numbers.resize(outputs * units);
        // those of bfloat16 have values apart
        const int64_t before = isa == BFLOAT16 && queries != 0.0 ? outputs / 3 * 2 : outputs;
        restore_pack(isa, weight.data(), before, inputs, numbers.data());
        if (before < outputs)
            restore_pack(isa, weight.data() + before * inputs, outputs - before, inputs,
                         numbers.data() + before * units);
        argument = {numbers.data(), bias.data(), outputs, inputs, layer.tokens != 1};
    }
};

int tokens(int64_t isa, int64_t count, int64_t channels, int64_t hidden, bool normalised,
           bool two) {
    const Floats x = draw(count * channels), residual = draw(count * channels);
    const Layer first(hidden, channels), second(channels, hidden);
    const Packed packed(isa, first), more(isa, second);
    const int64_t outputs = two ? channels : hidden;
    Floats out(count * outputs, NOT_WRITTEN);
    RestoreTokens call{};
    call.x = x.data();
    call.residual = two ? residual.data() : nullptr;
    call.out = out.data();
    call.count = count;
    call.channels = call.x_stride = call.residual_stride = channels;
    call.out_stride = outputs;
    call.first = packed.argument;
    if (two) call.second = more.argument;
    call.normalise = normalised;
    call.gelu = 1;
    call.eps = static_cast<float>(EPS);
    if (restore_tokens(isa, &call, THREADS)) return 1;
    return check(two ? "mlp" : "norm and layer", isa, true, out, [&](auto arithmetic) {
        typedef decltype(arithmetic) A;
        Reals<A> result;
        for (int64_t t = 0; t < count; ++t) {
            Reals<A> row(x.begin() + t * channels, x.begin() + (t + 1) * channels);
            if (normalised) normalise(row);
            row = first.apply<A>(row);
            for (auto &number : row) number = gelu(number);
            if (two) {
                row = second.apply<A>(row);
                for (int64_t c = 0; c < channels; ++c) row[c] += residual[t * channels + c];
            }
            result.insert(result.end(), row.begin(), row.end());
        }
        return result;
    });
}

struct Shape {
    int64_t height, width, rows, columns, shift_y, shift_x, halo, heads, each;

    static constexpr int64_t IMAGES = 2;
    int64_t channels() const { return heads * each; }
    int64_t pixels() const { return IMAGES * height * width; }
    int64_t queries() const { return rows * columns; }
    int64_t across() const { return columns + 2 * halo; }
    int64_t keys() const { return (rows + 2 * halo) * across(); }
    int64_t windows() const { return pixels() / queries(); }
};

// The windows of a shape, for the library and for the definition.
struct Windows {
    const Shape shape;
    const std::vector<int64_t> chosen;  // or none for all
    const Floats bias;                  // [heads, keys, queries]
    Floats laid_out;
    std::vector<int32_t> y, x, key_y, key_x, labels, key_at;
    RestoreWindows argument{};

    Windows(int64_t isa, const Shape &s, std::vector<int64_t> some = {})
        : shape(s), chosen(std::move(some)), bias(draw(s.heads * s.keys() * s.queries())) {
        const int64_t stride = padded(isa, s.queries());
        for (int64_t t = 0; t < s.queries(); ++t) {
            y.push_back(static_cast<int32_t>(t / s.columns));
            x.push_back(static_cast<int32_t>(t % s.columns));
        }
        labels.resize(4 * stride);
        for (int64_t t = 0; t < s.queries(); ++t) {
            const bool below = y[t] + s.shift_y >= s.rows, right = x[t] + s.shift_x >= s.columns;
            labels[stride + t] = right;
            labels[2 * stride + t] = below;
            labels[3 * stride + t] = 2 * below + right;
        }
        for (int64_t b = 0; b < s.keys(); ++b) {
            key_y.push_back(static_cast<int32_t>(b / s.across() - s.halo));
            key_x.push_back(static_cast<int32_t>(b % s.across() - s.halo));
            key_at.push_back(static_cast<int32_t>(b * stride));
        }
        laid_out.resize(s.heads * s.keys() * stride);
        for (int64_t row = 0; row < s.heads * s.keys(); ++row)
            for (int64_t a = 0; a < s.queries(); ++a)
                laid_out[row * stride + a] =
                    static_cast<float>(bias[row * s.queries() + a] * LOG2_E);
        const bool shifted = s.shift_y || s.shift_x;
        argument.query = {s.queries(), y.data(), x.data(), s.rows, s.columns, s.shift_y, s.shift_x,
                          0, shifted ? labels.data() : nullptr, stride};
        argument.key = argument.query;
        argument.key.tokens = s.keys();
        argument.key.y = key_y.data();
        argument.key.x = key_x.data();
        argument.key.halo = s.halo != 0;
        argument.bias = laid_out.data();
        argument.bias_stride = s.keys() * stride;
        argument.key_at = key_at.data();
    }

    // The map [images, height, width, channels] that becomes of one with 3 times as many.
    template <class A, typename Number>
    Reals<A> attend(const std::vector<Number> &qkv) const {
        typedef typename A::Real Real;
        const Shape &s = shape;
        Reals<A> out(s.pixels() * s.channels());
        std::vector<int64_t> all(chosen);
        for (int64_t w = 0; chosen.empty() && w < s.windows(); ++w) all.push_back(w);
        for (const int64_t w : all)
            for (int64_t h = 0; h < s.heads; ++h)
                for (int64_t a = 0; a < s.queries(); ++a) {
                    const Place own(s, w, y[a], x[a]);
                    const auto number = [&](int64_t pixel, int64_t kind, int64_t c) -> Real {
                        const int64_t feature = (kind * s.heads + h) * s.each + c;
                        return pixel < 0 ? 0 : qkv[pixel * 3 * s.channels() + feature];
                    };
                    const auto logit = [&](int64_t b) {
                        const Place other(s, w, key_y[b], key_x[b]);
                        const Real masked = own.piece == other.piece ? 0 : -100;
                        return bias[(h * s.keys() + b) * s.queries() + a] + masked +
                               dot<A>(s.each,
                                      [&](int64_t c) {
                                          return number(own.pixel, 0, c) *
                                                 static_cast<Real>(scale(s));
                                      },
                                      [&](int64_t c) { return number(other.pixel, 1, c); });
                    };
                    mix<A>(s.keys(), s.each, logit,
                           [&](int64_t b, int64_t c) {
                               return number(Place(s, w, key_y[b], key_x[b]).pixel, 2, c);
                           },
                           [&](int64_t c, Real mixed) {
                               out[own.pixel * s.channels() + h * s.each + c] = mixed;
                           });
                }
        return out;
    }

    static double scale(const Shape &s) { return 1.0 / std::sqrt(static_cast<double>(s.each)); }

    struct Place {
        int64_t pixel;  // or -1 outside of the map
        int64_t piece;  // of the image, which the roll put beside others

        Place(const Shape &s, int64_t window, int64_t row, int64_t column) {
            const int64_t across = s.width / s.columns, in_image = s.height / s.rows * across;
            const int64_t down = window % in_image / across * s.rows + s.shift_y + row;
            const int64_t right = window % across * s.columns + s.shift_x + column;
            const bool inside = down >= 0 && right >= 0 &&
                                (s.halo == 0 || (down < s.height && right < s.width));
            piece = 2 * (down >= s.height) + (right >= s.width);
            if (!inside || s.halo) piece = 0;
            pixel = inside ? (window / in_image * s.height + down % s.height) * s.width +
                                 right % s.width
                           : -1;
        }
    };
};

RestoreMap map_of(const Floats &numbers, const Shape &s, int64_t channels, int64_t first = 0) {
    return {const_cast<float *>(numbers.data()) + first, s.height * s.width * channels,
            s.width * channels, channels, 0};
}

// What all calls of attention in windows are told of a map.
template <class Call> void in_windows(Call &call, const Shape &s, const Windows &windows) {
    call.images = Shape::IMAGES;
    call.height = s.height;
    call.width = s.width;
    call.channels = s.channels();
    call.heads = s.heads;
    call.windows = windows.argument;
}

int branch(int64_t isa, const Shape &s, bool normalised, bool per_token, int64_t hidden = 0) {
    const int64_t channels = s.channels();
    const Floats x = draw(s.pixels() * channels);
    const Layer qkv(3 * channels, channels, per_token ? s.queries() : 1), proj(channels, channels);
    const Layer widen(std::max<int64_t>(hidden, 1), channels);
    const Layer narrow(channels, widen.outputs);
    const Packed packed(isa, qkv, Windows::scale(s) * LOG2_E), last(isa, proj);
    const Packed wide(isa, widen), back(isa, narrow);
    const Windows windows(isa, s);
    Floats out(x.size(), NOT_WRITTEN);
    RestoreBranch call{};
    call.x = map_of(x, s, channels);
    if (normalised && !hidden) call.residual = call.x;
    call.out = map_of(out, s, channels);
    in_windows(call, s, windows);
    call.each = s.each;
    call.qkv = packed.argument;
    call.proj = last.argument;
    if (hidden) call.widen = wide.argument;
    if (hidden) call.narrow = back.argument;
    call.normalise = normalised;
    call.eps = call.mlp_eps = static_cast<float>(EPS);
    if (restore_branch(isa, &call, THREADS)) return 1;
    return check(hidden ? "block" : "branch", isa, true, out, [&](auto arithmetic) {
        typedef decltype(arithmetic) A;
        Reals<A> projected, result;
        for (int64_t pixel = 0; pixel < s.pixels(); ++pixel) {
            Reals<A> row(x.begin() + pixel * channels, x.begin() + (pixel + 1) * channels);
            if (normalised) normalise(row);
            const int64_t down = pixel / s.width % s.height + s.height - s.shift_y;
            const int64_t right = pixel % s.width + s.width - s.shift_x;
            row = qkv.apply<A>(row, down % s.rows * s.columns + right % s.columns);
            projected.insert(projected.end(), row.begin(), row.end());
        }
        const Reals<A> mixed = windows.attend<A>(projected);
        for (int64_t pixel = 0; pixel < s.pixels(); ++pixel) {
            const auto at = mixed.begin() + pixel * channels;
            Reals<A> row = proj.apply<A>(Reals<A>(at, at + channels));
            for (int64_t c = 0; normalised && c < channels; ++c) row[c] += x[pixel * channels + c];
            if (hidden) {
                Reals<A> more = row;
                normalise(more);
                more = widen.apply<A>(more);
                for (auto &number : more) number = gelu(number);
                more = narrow.apply<A>(more);
                for (int64_t c = 0; c < channels; ++c) row[c] += more[c];
            }
            result.insert(result.end(), row.begin(), row.end());
        }
        return result;
    });
}

int attention(int64_t isa, const Shape &s, const std::vector<int64_t> &chosen) {
    const int64_t channels = s.channels();
    const Floats qkv = draw(s.pixels() * 3 * channels);
    const Windows windows(isa, s, chosen);
    Floats out(s.pixels() * channels);
    RestoreAttention call{};
    call.query = map_of(qkv, s, 3 * channels);
    call.key = map_of(qkv, s, 3 * channels, channels);
    call.value = map_of(qkv, s, 3 * channels, 2 * channels);
    call.out = map_of(out, s, channels);
    in_windows(call, s, windows);
    call.chosen = chosen.empty() ? nullptr : chosen.data();
    call.count = chosen.empty() ? s.windows() : static_cast<int64_t>(chosen.size());
    call.scale = static_cast<float>(Windows::scale(s) * LOG2_E);
    if (restore_attention(isa, &call, THREADS)) return 1;
    return check("attention", isa, true, out, [&](auto arithmetic) {
        return windows.attend<decltype(arithmetic)>(qkv);
    });
}

int groups(int64_t isa, int64_t count, int64_t size, int64_t heads, int64_t each) {
    const int64_t images = 2, channels = heads * each;
    const Floats qkv = draw(images * count * 3 * channels);
    std::vector<int64_t> order;
    for (int64_t t = 0; t < images * count; ++t) order.push_back(t * 7 % count);
    Floats out(images * count * channels, NOT_WRITTEN);
    const double scale = 1.0 / std::sqrt(static_cast<double>(each));
    RestoreGroups call{};
    call.qkv = qkv.data();
    call.out = out.data();
    call.order = order.data();
    call.images = images;
    call.tokens = count;
    call.channels = channels;
    call.heads = heads;
    call.size = size;
    call.scale = static_cast<float>(scale * LOG2_E);
    if (restore_groups(isa, &call, THREADS)) return 1;
    return check("groups", isa, false, out, [&](auto arithmetic) {
        typedef decltype(arithmetic) A;
        typedef typename A::Real Real;
        Reals<A> result(out.size());
        const auto token_at = [&](int64_t image, int64_t place) {
            const int64_t inside = place < count ? place : 2 * count - 1 - place;
            return image * count + order[image * count + inside];
        };
        for (int64_t image = 0; image < images; ++image)
            for (int64_t place = 0; place < count; ++place)
                for (int64_t h = 0; h < heads; ++h) {
                    const int64_t own = token_at(image, place), first = place / size * size;
                    const auto number = [&](int64_t token, int64_t kind, int64_t c) -> Real {
                        return qkv[(token * 3 + kind) * channels + h * each + c];
                    };
                    const auto key = [&](int64_t b) { return token_at(image, first + b); };
                    mix<A>(size, each,
                           [&](int64_t b) {
                               return static_cast<Real>(scale) *
                                      dot<A>(each, [&](int64_t c) { return number(own, 0, c); },
                                             [&](int64_t c) { return number(key(b), 1, c); });
                           },
                           [&](int64_t b, int64_t c) { return number(key(b), 2, c); },
                           [&](int64_t c, Real mixed) {
                               result[own * channels + h * each + c] = mixed;
                           });
                }
        return result;
    });
}

int dictionary(int64_t isa, int64_t count, int64_t entries, int64_t compared, int64_t channels) {
    const int64_t images = 2;
    const Floats query = draw(images * count * compared);
    const Floats key = draw(images * compared * entries, 3.0);
    const Floats value = draw(images * entries * channels);
    Floats similarity(images * count * entries, NOT_WRITTEN);
    Floats out(images * count * channels, NOT_WRITTEN);
    const RestoreDictionary call{query.data(), key.data(), value.data(), similarity.data(),
                                 out.data(),   images,     count,        entries,
                                 compared,     channels};
    if (restore_dictionary(isa, &call, THREADS)) return 1;
    const auto both = [&](auto arithmetic, bool weights) {
        typedef decltype(arithmetic) A;
        typedef typename A::Real Real;
        Reals<A> found, mixed;
        for (int64_t token = 0; token < images * count; ++token) {
            const int64_t image = token / count;
            const float *const own = query.data() + token * compared;
            Real squares = 0;
            for (int64_t c = 0; c < compared; ++c) squares += static_cast<Real>(own[c]) * own[c];
            const Real length = std::sqrt(squares);
            const auto logit = [&](int64_t m) {
                return dot<A>(compared, [&](int64_t c) { return own[c] / length; },
                              [&](int64_t c) -> Real {
                                  return key[(image * compared + c) * entries + m] /
                                         static_cast<Real>(LOG2_E);
                              });
            };
            const Reals<A> its = mix<A>(
                entries, channels, logit,
                [&](int64_t m, int64_t c) { return value[(image * entries + m) * channels + c]; },
                [&](int64_t, Real number) { mixed.push_back(number); });
            found.insert(found.end(), its.begin(), its.end());
        }
        return weights ? found : mixed;
    };
    return check("similarity", isa, false, similarity,
                 [&](auto arithmetic) { return both(arithmetic, true); }) +
           check("dictionary", isa, false, out,
                 [&](auto arithmetic) { return both(arithmetic, false); });
}

int refinement(int64_t isa, int64_t count, int64_t entries, int64_t channels) {
    const int64_t images = 2;
    const Floats similarity = draw(images * count * entries), x = draw(images * count * channels);
    const Floats old = draw(images * entries * channels), weight = draw(entries);
    const Floats bias = draw(entries), sigma = draw(entries);
    Floats out(old.size(), NOT_WRITTEN);
    const RestoreRefinement call{similarity.data(), x.data(),     old.data(), weight.data(),
                                 bias.data(),       sigma.data(), out.data(), images,
                                 count,             entries,      channels,   float(EPS)};
    if (restore_refinement(isa, &call, THREADS)) return 1;
    return check("refinement", isa, false, out, [&](auto arithmetic) {
        typedef decltype(arithmetic) A;
        typedef typename A::Real Real;
        Reals<A> result;
        for (int64_t image = 0; image < images; ++image)
            for (int64_t m = 0; m < entries; ++m) {
                Reals<A> column;
                for (int64_t t = 0; t < count; ++t)
                    column.push_back(similarity[(image * count + t) * entries + m]);
                normalise(column);
                const Real kept = 1 / (1 + std::exp(-static_cast<Real>(sigma[m])));
                const float *const its = old.data() + (image * entries + m) * channels;
                mix<A>(count, channels, [&](int64_t t) { return column[t] * weight[m] + bias[m]; },
                       [&](int64_t t, int64_t c) { return x[(image * count + t) * channels + c]; },
                       [&](int64_t c, Real found) {
                           result.push_back(kept * its[c] + (1 - kept) * found);
                       });
            }
        return result;
    });
}

int depthwise(int64_t isa, int64_t height, int64_t width, int64_t channels, int64_t side) {
    const int64_t images = 2;
    const Floats x = draw(images * height * width * channels), bias = draw(channels);
    const Floats weight = draw(side * side * channels, 1.0 / static_cast<double>(side));
    Floats out(x.size(), NOT_WRITTEN);
    const RestoreDepthwise call{x.data(), out.data(), weight.data(), bias.data(), images, height,
                                width,    channels,   side,          side,        1};
    if (restore_depthwise(isa, &call, THREADS)) return 1;
    return check("depthwise", isa, false, out, [&](auto arithmetic) {
        typedef typename decltype(arithmetic)::Real Real;
        std::vector<Real> result;
        for (int64_t at = 0; at < static_cast<int64_t>(x.size()); ++at) {
            const int64_t c = at % channels, column = at / channels % width;
            const int64_t row = at / channels / width % height;
            Real sum = bias[c];
            for (int64_t place = 0; place < side * side; ++place) {
                const int64_t down = place / side - side / 2, right = place % side - side / 2;
                if (row + down < 0 || row + down >= height) continue;
                if (column + right < 0 || column + right >= width) continue;
                sum += static_cast<Real>(weight[place * channels + c]) *
                       x[at + (down * width + right) * channels];
            }
            result.push_back(gelu(sum) + x[at]);
        }
        return result;
    });
}

int64_t reflected(int64_t at, int64_t length) {
    const int64_t period = std::max<int64_t>(2 * (length - 1), 1);
    return std::min(at % period, period - at % period);
}

int gated(int64_t isa, int64_t height, int64_t width, int64_t high, int64_t wide, int64_t channels,
          int64_t narrow) {
    const int64_t images = 2, pixels = images * high * wide;
    const Floats x = draw(images * height * width * channels);
    const Layer squeeze(narrow, channels), convolution(narrow, 9 * narrow);
    const Layer widen(channels, narrow), linear(channels, channels);
    const Packed packed[] = {{isa, squeeze}, {isa, convolution}, {isa, widen}, {isa, linear}};
    const int64_t plane = (high + 2) * (wide + 1) + 64;
    Floats out(pixels * channels, NOT_WRITTEN), memory(images * narrow * plane, NOT_WRITTEN);
    RestoreGated call{};
    call.x = {const_cast<float *>(x.data()), height * width * channels, width * channels, channels, 0};
    call.out = {out.data(), high * wide * channels, wide * channels, channels, 0};
    call.images = images;
    call.height = height;
    call.width = width;
    call.grown_height = high;
    call.grown_width = wide;
    call.channels = channels;
    call.squeeze = packed[0].argument;
    call.convolution = packed[1].argument;
    call.widen = packed[2].argument;
    call.linear = packed[3].argument;
    call.slope = 0.25f;
    call.next_slope = 0.125f;
    call.squeezed = memory.data();
    call.plane = plane;
    if (restore_gated(isa, &call, THREADS)) return 1;
    return check("gated projection", isa, true, out, [&](auto arithmetic) {
        typedef decltype(arithmetic) A;
        typedef typename A::Real Real;
        const auto leaky = [](Reals<A> row, float slope) {
            for (Real &number : row) number = number > 0 ? number : number * slope;
            return row;
        };
        std::vector<Reals<A>> tokens, squeezed;
        for (int64_t p = 0; p < pixels; ++p) {
            const int64_t image = p / (high * wide), row = reflected(p / wide % high, height);
            const int64_t at = (image * height + row) * width + reflected(p % wide, width);
            tokens.emplace_back(x.begin() + at * channels, x.begin() + (at + 1) * channels);
            squeezed.push_back(leaky(squeeze.apply<A>(tokens.back()), call.slope));
        }
        Reals<A> result;
        for (int64_t p = 0; p < pixels; ++p) {
            Reals<A> around;
            for (int64_t place = 0; place < 9; ++place) {
                const int64_t down = place / 3 - 1, right = place % 3 - 1;
                const int64_t row = p / wide % high + down, column = p % wide + right;
                const bool inside = row >= 0 && row < high && column >= 0 && column < wide;
                const Reals<A> zeros(narrow);
                const Reals<A> &other = inside ? squeezed[p + down * wide + right] : zeros;
                around.insert(around.end(), other.begin(), other.end());
            }
            const Reals<A> branch =
                widen.apply<A>(leaky(convolution.apply<A>(around), call.next_slope));
            const Reals<A> factor = linear.apply<A>(tokens[p]);
            for (int64_t c = 0; c < channels; ++c) result.push_back(branch[c] * factor[c]);
        }
        return result;
    });
}

// One image of windows beside each other, of which the last rows and columns are not given.
int correlation(int64_t isa, int64_t side, int64_t across, int64_t block, int64_t heads,
                int64_t each, int64_t parts) {
    const int64_t half = heads * each, channels = 2 * half, wide = across * side;
    const int64_t height = side - 1, width = wide - 1, tokens = side * side, row = side / block;
    const int64_t blocks = row * row, stride = blocks * tokens;
    const Floats qv = draw(side * wide * channels), x = draw(height * width * channels);
    const Floats weight = draw(block * block, 1.0 / static_cast<double>(block)), bias = draw(1);
    Floats position = draw(heads * stride);
    position.resize(position.size() + 32);
    const Floats norm_weight = draw(channels), norm_bias = draw(channels);
    const Layer proj(channels, channels);
    const Packed packed(isa, proj);
    std::vector<int32_t> ys, xs, block_at;
    for (int64_t t = 0; t < tokens; ++t) {
        ys.push_back(static_cast<int32_t>(t / side));
        xs.push_back(static_cast<int32_t>(t % side));
    }
    for (int64_t m = 0; m < blocks; ++m) block_at.push_back(static_cast<int32_t>(m * tokens));
    Floats out(x.size(), NOT_WRITTEN);
    Floats memory(across * (parts * channels + blocks) * padded(isa, half), NOT_WRITTEN);
    const auto map = [&](const Floats &numbers, int64_t columns) {
        return RestoreMap{const_cast<float *>(numbers.data()), static_cast<int64_t>(numbers.size()),
                          columns * channels, channels, 0};
    };
    RestoreCorrelation call{};
    call.qv = map(qv, wide);
    call.residual = map(x, width);
    call.out = map(out, width);
    call.images = call.down = 1;
    call.height = height;
    call.width = width;
    call.across = across;
    call.channels = channels;
    call.heads = heads;
    call.grid.tokens = tokens;
    call.grid.y = ys.data();
    call.grid.x = xs.data();
    call.grid.rows = call.grid.columns = side;
    call.block_rows = call.block_columns = block;
    call.weight = weight.data();
    call.bias = bias.data();
    call.position = position.data();
    call.position_stride = stride;
    call.block_at = block_at.data();
    call.proj = packed.argument;
    call.norm_weight = norm_weight.data();
    call.norm_bias = norm_bias.data();
    call.eps = static_cast<float>(EPS);
    call.parts = parts;
    call.sums = memory.data();
    if (restore_correlation(isa, &call, THREADS)) return 1;
    return check("correlation", isa, true, out, [&](auto arithmetic) {
        typedef decltype(arithmetic) A;
        typedef typename A::Real Real;
        Reals<A> result(out.size());
        for (int64_t w = 0; w < across; ++w) {
            const auto number = [&](int64_t t, int64_t c) -> Real {
                return qv[((t / side) * wide + w * side + t % side) * channels + c];
            };
            Reals<A> reduced(blocks * half, bias[0]), matrix(half * half);
            for (int64_t t = 0; t < tokens; ++t) {
                const int64_t y = t / side, z = t % side;
                const Real factor = weight[y % block * block + z % block];
                for (int64_t c = 0; c < half; ++c)
                    reduced[(y / block * row + z / block) * half + c] += factor * number(t, half + c);
            }
            for (int64_t i = 0; i < half * half; ++i)
                matrix[i] = dot<A>(tokens, [&](int64_t t) { return number(t, i / half); },
                                   [&](int64_t t) { return number(t, half + i % half); }) /
                            static_cast<Real>(tokens);
            for (int64_t t = 0; t < tokens; ++t) {
                if (t / side >= height || w * side + t % side >= width) continue;
                Reals<A> y(channels);
                for (int64_t c = 0; c < half; ++c) {
                    const int64_t h = c / each;
                    for (int64_t m = 0; m < blocks; ++m) {
                        const Real product =
                            dot<A>(each, [&](int64_t i) { return number(t, h * each + i); },
                                   [&](int64_t i) { return reduced[m * half + h * each + i]; });
                        const Real its = position[h * stride + m * tokens + t];
                        y[c] += (product / static_cast<Real>(each) + its) * reduced[m * half + c];
                    }
                    y[half + c] = dot<A>(half, [&](int64_t i) { return matrix[c * half + i]; },
                                         [&](int64_t i) { return number(t, half + i); });
                }
                y = proj.apply<A>(y);
                normalise(y);
                const int64_t at = ((t / side) * width + w * side + t % side) * channels;
                for (int64_t c = 0; c < channels; ++c)
                    result[at + c] = x[at + c] + y[c] * norm_weight[c] + norm_bias[c];
            }
        }
        return result;
    });
}

int digest(int64_t isa, int64_t count) {
    Floats x = draw(count + 1);
    const float *arrays[] = {x.data(), x.data() + count / 3};
    const int64_t counts[] = {count / 3, count - count / 3};
    const uint64_t before = restore_digest(isa, 2, arrays, counts);
    int wrong = 0;
    for (int64_t i = 0; i <= count; ++i) {
        x[i] = -x[i];
        wrong += (restore_digest(isa, 2, arrays, counts) == before) != (i == count);
        x[i] = -x[i];
    }
    if (wrong) std::printf("digest, set %d: %d changes: WRONG\n", static_cast<int>(isa), wrong);
    return wrong != 0;
}

int all(int64_t isa) {
    int wrong = 0;
    wrong += tokens(isa, 149, 24, 50, true, true);
    wrong += tokens(isa, 205, 3, 7, false, true);
    wrong += tokens(isa, 70, 100, 131, true, false);
    wrong += branch(isa, {12, 16, 4, 8, 2, 4, 0, 3, 10}, true, false);
    wrong += branch(isa, {8, 16, 8, 8, 0, 4, 0, 2, 16}, true, true);
    wrong += branch(isa, {6, 10, 3, 2, 1, 1, 0, 1, 2}, false, false);
    wrong += branch(isa, {16, 8, 8, 8, 4, 0, 0, 4, 30}, false, false);
    wrong += branch(isa, {12, 16, 4, 8, 2, 4, 0, 3, 10}, true, false, 61);
    wrong += branch(isa, {16, 8, 8, 8, 0, 0, 0, 2, 16}, true, false, 64);
    wrong += attention(isa, {12, 16, 4, 8, 2, 4, 0, 3, 10}, {});
    wrong += attention(isa, {12, 16, 4, 8, 2, 4, 0, 1, 5}, {7, 0, 11});
    wrong += attention(isa, {16, 24, 8, 8, 0, 0, 2, 2, 15}, {});
    wrong += groups(isa, 45, 20, 2, 9);
    wrong += groups(isa, 150, 128, 3, 2);
    wrong += dictionary(isa, 45, 21, 5, 19);
    wrong += dictionary(isa, 33, 64, 8, 2);
    wrong += refinement(isa, 700, 21, 19);
    wrong += depthwise(isa, 7, 19, 21, 5);
    wrong += depthwise(isa, 6, 9, 3, 3);
    wrong += gated(isa, 7, 19, 12, 24, 20, 4);
    wrong += gated(isa, 3, 2, 16, 8, 60, 12);
    wrong += correlation(isa, 4, 3, 1, 2, 5, 1);
    wrong += correlation(isa, 12, 2, 3, 3, 7, 2);
    wrong += correlation(isa, 24, 2, 4, 6, 5, 3);
    wrong += digest(isa, 150);
    return wrong;
}

}  // namespace

int main() {
    int wrong = 0;
    for (int64_t isa = 0; isa <= BFLOAT16; ++isa)
        if (restore_has_isa(isa)) wrong += all(isa);
    return wrong != 0;
}
