# The ten rows of the paper's Table 1 on small data sets at 224x224, from ImageNet weights (docs/results.md)
kernels = ('baseline3x3', 'depthwise5x5', 'mixconv35', 'depthwise7x7', 'mixconv357')
families = {
    family: dict(
        rows=[f'{family}-{kernel}-in1k' for kernel in kernels],
        schedule='schedules/schedule_study.py',
        chosen_with=f'{family}-baseline3x3-in1k',  # the row that the settings of all rows are chosen with
    )
    for family in ('mobilenetv1', 'mobilenetv2')
}
# in this order; epochs such that each set has about 400 to 600 iterations
data_sets = {
    'neu-det': dict(config='datasets/neu-det_detection_224.py', max_epochs=10, seeds=[0, 1, 2]),
    'bccd': dict(config='datasets/bccd_detection_224.py', max_epochs=40, seeds=[0, 1]),
    'deeppcb': dict(config='datasets/deeppcb_detection_224.py', max_epochs=15, seeds=[0, 1]),
}
for data_set in data_sets.values():
    data_set['variables'] = dict(cache=True)  # all runs read the same images
# variables of the schedule, chosen by the AP on a part of the training images that is held out
choice = dict(
    data='neu-det',
    held_out=0.2,
    seeds=[0],
    settings=[dict(lr=lr, ema=ema) for lr in (0.0005, 0.0015, 0.0045) for ema in (False, True)],
)
