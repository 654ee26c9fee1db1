import torch
from helpers import detector_batch, tiny_detector


def test_trains_and_predicts_at_sizes_that_are_no_multiple_of_32():
    for size in ((96, 96), (75, 130)):
        model = tiny_detector()
        losses = model.loss(**prepared(model, size))
        sum(losses.values()).backward()
        assert all(p.grad is not None for p in model.parameters())
        model.eval()
        with torch.no_grad():
            results = model.test_step(detector_batch(size))
        assert len(results) == 2
        for result in results:
            boxes = result.pred_instances.bboxes
            assert len(boxes) > 0 and boxes.min() >= 0  # untrained: many weak detections
            assert (boxes.max(0)[0] <= torch.tensor([size[1] * 2, size[0] * 2] * 2)).all()


def prepared(model, size):
    data = model.data_preprocessor(detector_batch(size), training=True)
    return dict(batch_inputs=data['inputs'], batch_data_samples=data['data_samples'])


def test_channels_follow_from_the_backbone():
    model = tiny_detector(out_indices=(2, 'head'))
    assert model.neck.in_channels == model.backbone.out_channels
    assert tuple(model.bbox_head.in_channels) == model.neck.out_channels


def test_overfits_one_batch():
    model = tiny_detector()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    data = prepared(model, (96, 96))
    history = []
    for _ in range(25):
        loss = sum(model.loss(**data).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.5 * history[0]
