// Run a detector exported by tools/export.py --format onnx with OpenVINO alone: detect MODEL.onnx IMAGE.ppm
#include <fstream>
#include <openvino/openvino.hpp>
#include <regex>

// What a regular expression finds in one of the model's metadata, which are JSON: numbers, or names in quotes.
static std::vector<std::string> read(const ov::Model& model, const char* key, const char* pattern = R"(([-+.\de]+))") {
    auto text = model.get_rt_info<std::string>("framework", key);
    const std::regex parts(pattern);
    std::vector<std::string> found;
    for (std::sregex_iterator part(text.begin(), text.end(), parts), end; part != end; ++part) found.push_back((*part)[1]);
    return found;
}

int main(int count, char** arguments) try {
    if (count != 3) throw std::runtime_error("usage: detect MODEL.onnx IMAGE.ppm");
    ov::Core core;
    auto model = core.read_model(arguments[1]);
    auto classes = read(*model, "classes", R"re("((?:[^"\\]|\\.)*)")re"), size = read(*model, "input_size");
    auto mean = read(*model, "mean"), deviation = read(*model, "std");
    const bool half_pixel = model->get_rt_info<std::string>("framework", "resize") == "Resize";

    std::ifstream file(arguments[2], std::ios::binary);
    std::string kind;
    size_t old[2], most, sides[2] = {std::stoul(size.at(0)), std::stoul(size.at(1))};  // height, width
    if (!(file >> kind >> old[1] >> old[0] >> most) || kind != "P6" || most != 255) throw std::runtime_error("not a PPM");
    std::vector<char> pixels(1 + old[0] * old[1] * 3);  // and the space before them
    if (!file.read(pixels.data(), pixels.size())) throw std::runtime_error("the PPM is cut off");

    // bilinear without antialiasing, as in training: OpenCV's resize, or TensorFlow's without its half-pixel shift
    size_t top, bottom, left, right;
    auto place = [&](int side, size_t i, size_t& low, size_t& high) {
        float shift = half_pixel ? 0.5f : 0.0f, last = old[side] - 1;
        float at = std::clamp((i + shift) * (float(old[side]) / sides[side]) - shift, 0.0f, last);
        low = size_t(at), high = std::min(low + 1, old[side] - 1);
        return at - low;
    };
    ov::Tensor image(ov::element::f32, {1, 3, sides[0], sides[1]});
    for (size_t i = 0; i < image.get_size(); ++i) {
        size_t c = i / (sides[0] * sides[1]);
        float down = place(0, i / sides[1] % sides[0], top, bottom), across = place(1, i % sides[1], left, right);
        auto at = [&](size_t y, size_t x) { return float(uint8_t(pixels[1 + (y * old[1] + x) * 3 + c])); };
        float near = at(top, left) + (at(bottom, left) - at(top, left)) * down;
        float far = at(top, right) + (at(bottom, right) - at(top, right)) * down, value = near + (far - near) * across;
        image.data<float>()[i] = ((half_pixel ? std::nearbyint(value) : value) - std::stof(mean[c])) / std::stof(deviation[c]);
    }
    auto run = core.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32)).create_infer_request();
    run.set_tensor("image", image);
    run.infer();
    const float *box = run.get_tensor("boxes").data<float>(), *score = run.get_tensor("scores").data<float>();
    const float across = float(old[1]) / sides[1], down = float(old[0]) / sides[0];
    const auto* label = run.get_tensor("labels").data<int64_t>();
    for (size_t i = 0; i < run.get_tensor("scores").get_size() && score[i] >= 0.3f; ++i, box += 4)
        printf("%-16s %.3f  %7.1f  %7.1f  %7.1f  %7.1f\n", classes.at(label[i]).c_str(), score[i], box[0] * across,
               box[1] * down, box[2] * across, box[3] * down);
} catch (const std::exception& error) {
    return fprintf(stderr, "error: %s\n", error.what()), 2;
}
